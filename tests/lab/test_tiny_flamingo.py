# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
import torch

from cvreg_trainer.lab import load_base_model, make_scenes, make_tiny_flamingo


def test_its_parts_are_those_of_the_captioner_and_it_ends_chunks():
    captioner, _ = load_base_model()
    torch.manual_seed(0)
    model, processor = make_tiny_flamingo(["<|endofchunk|>", "<image>"])
    for name, weight in captioner.model.vision_tower.state_dict().items():
        assert weight.equal(model.model.vision_tower.state_dict()[name])
    rows = slice(len(processor.tokenizer) - 2)
    old, new = (m.get_output_embeddings().weight.detach()[rows] for m in (captioner, model))
    moved = (old != new).any(1).nonzero().flatten().tolist()
    assert moved == processor.tokenizer.convert_tokens_to_ids(["</s>"])
    [end] = processor.tokenizer.convert_tokens_to_ids(["<|endofchunk|>"])
    assert model.get_output_embeddings().weight[end].equal(captioner.get_output_embeddings().weight[moved[0]])
    image = make_scenes(1, seed=0)[0]["images"][0]
    inputs = processor(images=[[image]], text=["<image>Output: a"], return_tensors="pt")
    assert model(**inputs).logits.isfinite().all()
    torch.manual_seed(0)
    again, _ = make_tiny_flamingo(["<|endofchunk|>", "<image>"])
    assert all(a.equal(b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
