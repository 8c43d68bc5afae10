# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What holds of Flamingo over every language model: what a token reads, padding, generation, gradients, loading."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_flamingo import IMAGE_SIZE, LANGUAGE_MODELS, tiny_flamingo
from tiny_models import vision_rows
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedModel

from cvreg_trainer import add_cross_view_head
from cvreg_trainer.head.decoder_layers import find_decoder_layer
from cvreg_trainer.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration
from cvreg_trainer.models.flamingo.layers_flamingo import FlamingoMaskedCrossAttention


ROWS = vision_rows(4, style="plain", image_free=(1,), several=(2,))
LAYER = {"llama": "model.layers", "mpt": "transformer.blocks", "mpt_1b": "transformer.blocks"}
LAYER |= {"gpt_neox": "gpt_neox.layers", "opt": "model.decoder.layers"}


def inputs_of(processor: Any, rows: list[dict[str, Any]] = ROWS, side: str = "right") -> dict[str, torch.Tensor]:
    """A batch of four rows: one image, none, two, one."""
    texts, images = [row["prompt"] for row in rows], [row["images"] for row in rows]
    return dict(processor(images=images, text=texts, padding=True, padding_side=side, return_tensors="pt"))


@torch.no_grad()
def logits_of(model: PreTrainedModel, **inputs: Any) -> torch.Tensor:
    return model(**inputs).logits


def test_with_closed_gates_it_is_the_language_model() -> None:
    model, processor = tiny_flamingo()
    inputs = inputs_of(processor)
    fresh = FlamingoForConditionalGeneration(model.config).eval()
    text = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    expected = logits_of(fresh.model.language_model, **text)
    assert torch.equal(logits_of(fresh, **inputs), expected)
    assert not torch.allclose(logits_of(model, **inputs), logits_of(model.model.language_model, **text))


def test_a_token_reads_the_last_image_before_it_and_no_other() -> None:
    model, processor = tiny_flamingo()
    ids = torch.tensor([[11, processor.image_token_id, 12, 13, processor.image_token_id, 14, 15]])
    media = torch.randn(1, 2, 4, 16, requires_grad=True)
    layer = model.model.gated_cross_attention["1"].attn
    text_time = model.model.count_images(ids, 2)
    assert text_time.tolist() == [[0, 1, 1, 1, 2, 2, 2]]
    output = layer(torch.randn(1, 7, 16), media, text_time)
    assert torch.equal(output[0, 0], torch.zeros(16))
    for position, image in enumerate(text_time[0].tolist()):
        grad = torch.autograd.grad(output[0, position].sum(), media, retain_graph=True)[0].abs().sum((0, 2, 3))
        assert [bool(value > 0) for value in grad] == [image == 1, image == 2]


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_logits_do_not_hang_on_padding_neighbours_or_filled_up_images(kind: str) -> None:
    model, processor = tiny_flamingo(kind)
    for side in ("left", "right"):
        inputs = inputs_of(processor, side=side)
        assert inputs["pixel_values"].shape == (4, 2, 1, 3, IMAGE_SIZE, IMAGE_SIZE)
        batch = logits_of(model, **inputs)
        for index, row in enumerate(ROWS):
            alone = inputs_of(processor, [row])
            # The row without images has no pixel values when it is alone
            assert ("pixel_values" in alone) == bool(row["images"])
            real = batch[index][inputs["attention_mask"][index].bool()]
            torch.testing.assert_close(real, logits_of(model, **alone)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_gives_the_same_logits_with_and_without_a_cache(kind: str, num_beams: int) -> None:
    model, processor = tiny_flamingo(kind)
    inputs = inputs_of(processor, side="left")
    options: dict[str, Any] = {"max_new_tokens": 6, "num_beams": num_beams}
    # Logits, for tokens may be equal by chance: the likeliest one of a tiny model often is, whatever it reads
    whole = {"return_dict_in_generate": True, "output_logits": True}
    outputs = [model.generate(**inputs, **options, **whole, use_cache=use_cache) for use_cache in (True, False)]
    assert len(outputs[0].logits) == 6
    torch.testing.assert_close(torch.stack(outputs[0].logits), torch.stack(outputs[1].logits), rtol=1e-4, atol=1e-4)
    cached = outputs[0].sequences
    assert torch.equal(cached, outputs[1].sequences)
    length = inputs["input_ids"].shape[1]
    for index, row in enumerate(ROWS):
        alone = model.generate(**inputs_of(processor, [row]), **options)[0]
        new = alone[int(inputs["attention_mask"][index].sum()) :]
        assert cached[index, length : length + len(new)].tolist() == new.tolist()
    if num_beams == 1:
        # Step by step from the whole text, without `generate`
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        for step in range(6):
            logits = logits_of(model, input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"])
            torch.testing.assert_close(logits[:, -1], outputs[0].logits[step], rtol=1e-4, atol=1e-4)
            ids, mask = cached[:, : length + step + 1], torch.nn.functional.pad(mask, (0, 1), value=1)


def test_generation_encodes_the_images_once_and_keeps_them_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_flamingo()
    inputs = inputs_of(processor, [ROWS[0]])
    calls = []
    encode = model.model.get_image_features
    monkeypatch.setattr(model.model, "get_image_features", lambda pixels: calls.append(pixels.shape) or encode(pixels))
    read = []
    layer = model.model.gated_cross_attention["3"].attn
    layer.register_forward_pre_hook(lambda _, args: read.append(args[2].tolist()))
    model.generate(**inputs, max_new_tokens=4, num_beams=2, eos_token_id=None)
    assert calls == [inputs["pixel_values"].shape]
    assert read[0] == [[1] * inputs["input_ids"].shape[1]] * 2 and read[1:] == [[[1], [1]]] * 3
    text = processor(text="describe this image", return_tensors="pt")
    assert model.generate(**text, max_new_tokens=3, eos_token_id=None).shape[1] == text["input_ids"].shape[1] + 3


def test_a_cache_filled_by_hand_needs_the_text_time() -> None:
    model, processor = tiny_flamingo()
    inputs = inputs_of(processor, [ROWS[2]])
    ids, pixels = inputs["input_ids"], inputs["pixel_values"]
    expected = logits_of(model, input_ids=ids, pixel_values=pixels)
    with torch.no_grad():
        first = model(input_ids=ids[:, :4], pixel_values=pixels, use_cache=True)
    rest = {"input_ids": ids[:, 4:], "cache": first.cache}
    rest["image_hidden_states"] = first.image_hidden_states
    with pytest.raises(ValueError, match="a `cache` that already holds a part of it, pass `text_time`"):
        model(**rest)
    text_time = model.model.count_images(ids, 2)[:, 4:]
    torch.testing.assert_close(logits_of(model, **rest, text_time=text_time), expected[:, 4:], rtol=1e-4, atol=1e-4)
    embeds = model.get_input_embeddings()(ids)
    time = model.model.count_images(ids, 2)
    assert torch.equal(logits_of(model, inputs_embeds=embeds, pixel_values=pixels, text_time=time), expected)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_the_caches_old_name_is_what_it_is_in_transformers(kind: str) -> None:
    model, processor = tiny_flamingo(kind)
    inputs = inputs_of(processor, [ROWS[0]])
    ids, pixels = inputs["input_ids"], inputs["pixel_values"]
    expected = logits_of(model, input_ids=ids, pixel_values=pixels)[:, 4:]
    rest = {"input_ids": ids[:, 4:], "pixel_values": pixels, "text_time": model.model.count_images(ids, 1)[:, 4:]}
    for part, name in ((model, "FlamingoForConditionalGeneration"), (model.model, "FlamingoModel")):
        with torch.no_grad():
            first = part(input_ids=ids[:, :4], pixel_values=pixels, use_cache=True)
        assert first.past_key_values is first["past_key_values"] is first.cache
        with pytest.warns(FutureWarning, match=f"`past_key_values` is deprecated .* `{name}.forward`. Use `cache`"):
            output = part(**rest, past_key_values=first.past_key_values)
        logits = output.logits if part is model else model.get_output_embeddings()(output.last_hidden_state)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert output.cache.get_seq_length() == ids.shape[1]


def test_wrong_inputs_are_errors_and_leave_nothing_behind() -> None:
    model, processor = tiny_flamingo()
    inputs = inputs_of(processor)
    with pytest.raises(ValueError, match="A row has 2 image tokens .* but the batch has 1 images per row"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][:, :1]})
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="the batch has 0 images"):
            call(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    with pytest.raises(ValueError, match=r"`pixel_values` has shape \(4, 2, 3, 8, 8\)"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][:, :, 0]})
    with pytest.raises(IndexError):  # raised inside the language model, after the hooks were set
        model(input_ids=torch.tensor([[10**6]]))
    with pytest.raises(ValueError, match="`cross_attn_every_n_layers=9` .* from 1 to 4"):
        FlamingoConfig(text_config=model.config.text_config, cross_attn_every_n_layers=9)
    layers = model.get_submodule(find_decoder_layer(model, 0).removesuffix(".0"))
    assert all(not layer._forward_pre_hooks for layer in layers)
    model.config.image_token_id = None
    with pytest.raises(ValueError, match="`image_token_id` is not set"):
        model(**inputs)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_gradients_are_the_same_under_both_kinds_of_checkpointing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_flamingo(kind)
    inputs = inputs_of(processor)
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    calls = []
    attend = FlamingoMaskedCrossAttention.forward
    monkeypatch.setattr(FlamingoMaskedCrossAttention, "forward", lambda *args: calls.append(1) or attend(*args))
    gradients = []
    for use_reentrant in (None, False, True):
        twin = copy.deepcopy(model).train()
        if use_reentrant is not None:
            twin.activation_checkpointing_enable({"use_reentrant": use_reentrant})
            twin.enable_input_require_grads()
        calls.clear()
        twin(**inputs).loss.backward()
        assert len(calls) == (2 if use_reentrant is None else 4)  # the gated blocks are recomputed too
        gradients.append({name: parameter.grad for name, parameter in twin.named_parameters()})
    # CLIP pools through its last norm, but its pooled output is not used
    unused = {name for name, grad in gradients[0].items() if grad is None}
    assert unused == {f"model.vision_tower.post_layernorm.{name}" for name in ("weight", "bias")}
    assert all(
        grad.abs().sum() > 0 for name, grad in gradients[0].items() if name not in unused and "k_proj.b" not in name
    )
    for name, grad in gradients[0].items():
        for other in gradients[1:]:
            if grad is not None:
                torch.testing.assert_close(other[name], grad, rtol=1e-4, atol=1e-6)


def test_without_images_every_trained_module_takes_part() -> None:
    model, processor = tiny_flamingo()
    inputs = inputs_of(processor, [ROWS[1]])
    model.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all("post_layernorm" in name for name in without)
    assert not any(p.grad.any() for name, p in model.named_parameters() if "perceiver" in name)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_saving_and_loading(kind: str, tmp_path: Path) -> None:
    model, processor = tiny_flamingo(kind)
    inputs = inputs_of(processor)
    model.save_pretrained(tmp_path)
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is FlamingoForConditionalGeneration and not any(report.values())
    assert torch.equal(logits_of(again, **inputs), logits_of(model, **inputs))
    tied = again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert tied == (kind in ("mpt", "mpt_1b", "opt")) == again.config.tie_word_embeddings
    # TRL's trainers load a model by its path through this class
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is FlamingoForConditionalGeneration


def test_half_precision_and_offloading(tmp_path: Path) -> None:
    model, processor = tiny_flamingo("mpt_1b")
    inputs = inputs_of(processor)
    model.save_pretrained(tmp_path / "model")
    half = FlamingoForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    expected = logits_of(model, **inputs)
    assert (logits_of(half, **inputs) - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert half.generate(**inputs_of(processor, side="left"), max_new_tokens=2).shape[0] == 4
    device_map = {"model.vision_tower": "cpu", "model.perceiver": "disk", "model.language_model": "cpu"}
    offloaded = FlamingoForConditionalGeneration.from_pretrained(
        tmp_path / "model",
        device_map={**device_map, "model.gated_cross_attention": "disk"},
        offload_folder=tmp_path / "offloaded",
    )
    assert torch.equal(logits_of(offloaded, **inputs), expected)


def test_four_bit_loading(tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    model, processor = tiny_flamingo(width=64)
    inputs = inputs_of(processor)
    model.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    small = FlamingoForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config, dtype=torch.float32)
    converted = {name: m.weight for name, m in small.named_modules() if type(m).__name__ == "Linear4bit"}
    assert {name.split(".")[1] for name in converted} == {
        "vision_tower",
        "perceiver",
        "gated_cross_attention",
        "language_model",
    }
    for name, weight in converted.items():
        rounded = functional.dequantize_4bit(weight.data, weight.quant_state)
        model.get_submodule(name).weight.data.copy_(rounded)
    # With gradients: without, bitsandbytes calculates in bfloat16 on some CPUs
    torch.testing.assert_close(small(**inputs).logits, model(**inputs).logits, rtol=1e-3, atol=1e-3)
    small.dequantize()
    assert not any(type(module).__name__ == "Linear4bit" for module in small.modules())
    torch.testing.assert_close(small(**inputs).logits, model(**inputs).logits, rtol=1e-3, atol=1e-3)


def test_videos_have_frame_embeddings() -> None:
    model, processor = tiny_flamingo(max_frames=3)
    video = torch.randn(1, 1, 3, 3, IMAGE_SIZE, IMAGE_SIZE)
    text = processor(text="<image> describe", images=[[ROWS[0]["images"][0]]], return_tensors="pt")["input_ids"]
    forwards = logits_of(model, input_ids=text, pixel_values=video)
    backwards = logits_of(model, input_ids=text, pixel_values=video.flip(2))
    assert (forwards - backwards).abs().max() > 1e-3
    with pytest.raises(ValueError, match="has 4 frames, but the model knows only 3"):
        model(input_ids=text, pixel_values=video[:, :, [0, 1, 2, 2]])
    # Without frame embeddings the frames are a set
    model = tiny_flamingo()[0]
    forwards = logits_of(model, input_ids=text, pixel_values=video)
    torch.testing.assert_close(
        forwards, logits_of(model, input_ids=text, pixel_values=video.flip(2)), rtol=1e-4, atol=1e-4
    )


def test_the_vocabulary_can_grow() -> None:
    model, processor = tiny_flamingo()
    inputs = inputs_of(processor)
    size = model.config.text_config.vocab_size
    before = logits_of(model, **inputs)
    model.resize_token_embeddings(size + 3)
    assert model.config.text_config.vocab_size == size + 3
    output = model(**inputs, labels=inputs["input_ids"])
    torch.testing.assert_close(output.logits[..., :size], before)
    flat = output.logits[:, :-1].flatten(0, 1)
    torch.testing.assert_close(
        output.loss, torch.nn.functional.cross_entropy(flat, inputs["input_ids"][:, 1:].flatten())
    )


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_the_cross_view_head_finds_layers_and_logits(kind: str) -> None:
    model, processor = tiny_flamingo(kind)
    assert find_decoder_layer(model) == f"model.language_model.{LAYER[kind]}.2"
    inputs = inputs_of(processor)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        expected = model(**inputs, labels=labels).loss
        add_cross_view_head(model)
        view = torch.randn_like(inputs["pixel_values"])
        output = model(**inputs, labels=labels, perturbed_pixel_values=view, cross_view=True)
    torch.testing.assert_close(-output.log_probs.sum() / output.label_mask.sum(), expected, rtol=1e-5, atol=1e-5)
    assert [bool(distance > 1e-8) for distance in output.feature_distance] == [True, False, True, True]
