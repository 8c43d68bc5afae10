# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a step learns, that a run goes on as if it had not been cut off, and the merge."""

from pathlib import Path

import torch
from tiny_parts import tiny_joined

from cvreg_trainer.data.pictures import Picture, Row
from cvreg_trainer.lab.real_parts.batches import encode_row
from cvreg_trainer.lab.real_parts.learning import Learner, hidden_states


PICTURE = Picture("tux_paint", "dog", b"", "A dog.")


def make_learner() -> Learner:
    model, processor = tiny_joined()
    torch.manual_seed(2)
    return Learner(model.bfloat16().train(), processor.tokenizer, rank=4, learning_rate=3e-3)


def batch() -> tuple[list, list[torch.Tensor]]:
    _, processor = tiny_joined()
    rows = [
        Row("caption", (PICTURE,), ("What?", "A dog")),
        Row("text", (), ("What?", "No")),
        Row("two", (PICTURE, PICTURE), ("What?", "Two")),
    ]
    features = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))
    return [encode_row(row, processor, 4) for row in rows], list(features)


def run(learner: Learner, steps: range) -> list[float]:
    rows, features = batch()
    losses = []
    for step in steps:
        loss = learner.loss(rows, features, 0.0, torch.Generator().manual_seed(step))
        learner.step(loss, 1.0)
        losses.append(loss.item())
    return losses


def test_projector_and_adapters_learn_and_nothing_else() -> None:
    learner = make_learner()
    before = {name: value.detach().clone() for name, value in learner.model.named_parameters()}
    losses = run(learner, range(30))
    assert losses[-1] < 0.7 * losses[0]
    changed = {name for name, value in learner.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(learner.trained)
    assert any("multi_modal_projector" in name for name in changed) and any("lora_B" in name for name in changed)


def test_a_run_goes_on_as_if_it_had_not_been_cut_off(tmp_path: Path) -> None:
    whole = make_learner()
    expected = run(whole, range(6))
    first = make_learner()
    run(first, range(3))
    first.save(tmp_path / "state.safetensors", 3)
    second = make_learner()
    assert second.load(tmp_path / "state.safetensors") == 3
    assert run(second, range(3, 6)) == expected[3:]
    assert all(torch.equal(whole.copies[name], second.copies[name]) for name in whole.copies)
    assert not list(tmp_path.glob("*.part"))


def test_the_merged_model_says_what_the_learner_says() -> None:
    learner = make_learner()
    run(learner, range(20))
    merged, processor = tiny_joined()
    plain, _ = tiny_joined()
    learner.merge_into(merged)
    row = encode_row(Row("caption", (PICTURE,), ("What?", "A dog")), processor, 4)
    ids = torch.tensor([row.prompt + row.response])
    features = [torch.randn(4, 16)]
    learner.model.float()
    says = [hidden_states(m, ids, torch.ones_like(ids), features) for m in (learner.model.eval(), merged, plain)]
    near, far = (says[0] - says[1]).norm(), (says[0] - says[2]).norm()
    assert near < 0.05 * far


def test_pictures_take_their_places_as_in_the_models_own_forward() -> None:
    model, processor = tiny_joined()
    pixels = torch.rand(1, 3, 28, 28)
    row = encode_row(Row("caption", (PICTURE,), ("What?", "A dog")), processor, 4)
    ids = torch.tensor([row.prompt + row.response])
    with torch.no_grad():
        layers = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        features = layers[model.config.vision_feature_layer][0, 1:]
        ours = model.lm_head(hidden_states(model, ids, torch.ones_like(ids), [features]))
        theirs = model(input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(ours, theirs)
