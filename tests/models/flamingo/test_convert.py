# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The converters: what they write, the forms of files they read, and what they refuse. Numbers: test_parity.py."""

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from published_checkpoints import (
    OPENFLAMINGO,
    OTTER,
    publish_openflamingo,
    publish_otter,
    read_golden,
    save_folder,
    save_tokenizer,
    weights_of,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPConfig, CLIPModel, CLIPVisionConfig

from cvreg_trainer.models.flamingo import FlamingoForConditionalGeneration, convert_openflamingo, convert_otter


def edit_torch_file(path: Path, edit: Any) -> None:
    weights = torch.load(path, weights_only=True)
    torch.save(edit(weights) or weights, path)


def edit_folder(folder: Path, edit: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(edit(weights) or weights, folder / "model.safetensors", {"format": "pt"})


def drop(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in weights.items() if key != name}


def logits_of(folder: Path, name: str) -> torch.Tensor:
    golden = read_golden(name)[0]
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**{key: golden[key] for key in ("input_ids", "attention_mask", "pixel_values")}).logits


def assert_as_reference(folder: Path, name: str) -> None:
    golden = read_golden(name)[0]
    real = golden["attention_mask"].bool()
    torch.testing.assert_close(logits_of(folder, name)[real].double(), golden["logits"][real], rtol=1e-4, atol=1e-4)


def test_openflamingo_configuration_and_processor(tmp_path: Path) -> None:
    metadata = read_golden("openflamingo_mpt")[1]
    out = convert_openflamingo(*publish_openflamingo(metadata, tmp_path), tmp_path / "out")
    config = FlamingoForConditionalGeneration.from_pretrained(out).config
    assert (config.num_latents, config.num_perceiver_layers, config.cross_attn_every_n_layers) == (64, 6, 2)
    assert (config.num_cross_attention_heads, config.cross_attention_head_dim, config.max_frames) == (8, 64, None)
    assert config.text_config.vocab_size == 34 and config.image_token_id == 33
    processor = AutoProcessor.from_pretrained(out)
    assert processor.tokenizer.convert_tokens_to_ids(["<|endofchunk|>", "<image>"]) == [32, 33]
    assert processor.tokenizer.padding_side == "left" and processor.image_processor.size["shortest_edge"] == 8
    generation = json.loads((out / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (32, 1)


def test_otter_video_configuration_and_processor(tmp_path: Path) -> None:
    out = convert_otter(publish_otter(read_golden("otter_llama_video")[1], tmp_path), tmp_path / "out")
    config = FlamingoForConditionalGeneration.from_pretrained(out).config
    assert (config.max_frames, config.cross_attn_every_n_layers, config.text_config.vocab_size) == (5, 2, 35)
    tokens = ["<|endofchunk|>", "<image>", "<answer>"]
    assert AutoProcessor.from_pretrained(out).tokenizer.convert_tokens_to_ids(tokens) == [32, 33, 34]


def test_a_tokenizer_with_the_tokens_keeps_their_ids_and_one_without_padding_gets_it(tmp_path: Path) -> None:
    metadata = read_golden("otter_mpt")[1]
    folder = publish_otter(metadata, tmp_path)
    settings = json.loads((folder / "tokenizer.json").read_text())
    names = {"w20": "<image>", "w21": "<|endofchunk|>", "w22": "<answer>"}
    vocabulary = settings["model"]["vocab"]
    settings["model"]["vocab"] = {names.get(word, word): index for word, index in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer_config.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    out = convert_otter(folder, tmp_path / "out")
    tokenizer = AutoProcessor.from_pretrained(out).tokenizer
    assert tokenizer.convert_tokens_to_ids(["<image>", "<|endofchunk|>", "<answer>", "<PAD>"]) == [20, 21, 22, 32]
    assert tokenizer.pad_token == "<PAD>"
    assert FlamingoForConditionalGeneration.from_pretrained(out).config.image_token_id == 20


def test_training_checkpoints_shards_and_second_names_are_read(tmp_path: Path) -> None:
    """As saved in training: wrapped, from DDP, gated blocks under their second names, old buffers."""
    name = "openflamingo_gpt_neox"
    checkpoint, base, vision = publish_openflamingo(read_golden(name)[1], tmp_path)

    def wrap(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
        weights["lang_encoder.gpt_neox.layers.0.decoder_layer.attention.rotary_emb.inv_freq"] = torch.ones(2)
        weights["lang_encoder.gpt_neox.layers.0.decoder_layer.attention.masked_bias"] = torch.ones(1)
        for key in list(weights):
            if ".layers.1.gated_cross_attn_layer" in key:
                rest = key.split("gated_cross_attn_layer.")[1]
                weights[f"lang_encoder.gated_cross_attn_layers.1.{rest}"] = weights[key]
            elif ".layers.3.gated_cross_attn_layer" in key:
                rest = key.split("gated_cross_attn_layer.")[1]
                weights[f"lang_encoder.gated_cross_attn_layers.3.{rest}"] = weights.pop(key)
        return {"epoch": 3, "model_state_dict": {f"module.{key}": tensor for key, tensor in weights.items()}}

    edit_torch_file(checkpoint, wrap)
    weights = load_file(vision / "model.safetensors")
    (vision / "model.safetensors").unlink()
    torch.save(weights, vision / "pytorch_model.bin")
    assert_as_reference(convert_openflamingo(checkpoint, base, vision, tmp_path / "out"), name)

    name = "otter_mpt_1b"
    folder = publish_otter(read_golden(name)[1], tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights["lang_encoder.lm_head.weight"] = weights["lang_encoder.transformer.wte.weight"]  # tied, saved twice
    weights["vision_encoder.vision_model.embeddings.position_ids"] = torch.arange(5)
    keys = sorted(weights)
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        torch.save({key: weights[key] for key in part}, folder / f"pytorch_model-{number:05}-of-00002.bin")
    assert_as_reference(convert_otter(folder, tmp_path / "out2"), name)


def test_the_vision_tower_may_come_from_a_whole_clip(tmp_path: Path) -> None:
    checkpoint, base, vision = publish_openflamingo(read_golden("openflamingo_opt")[1], tmp_path)
    vision_config = CLIPVisionConfig.from_pretrained(vision).to_dict()
    text_config = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = CLIPModel(CLIPConfig(text_config={**text_config, "vocab_size": 8}, vision_config=vision_config))
    weights = load_file(vision / "model.safetensors")
    clip.vision_model.load_state_dict({key.removeprefix("vision_model."): value for key, value in weights.items()})
    clip.save_pretrained(tmp_path / "clip")
    out = convert_openflamingo(checkpoint, base, tmp_path / "clip", tmp_path / "out")
    assert_as_reference(out, "openflamingo_opt")


def test_a_table_that_shrank_and_an_untied_head_that_grew(tmp_path: Path) -> None:
    def widen(weights: dict[str, torch.Tensor]) -> None:
        for key in ("transformer.wte.weight", "lm_head.weight"):
            weights[key] = torch.cat((weights[key], torch.full((16, 16), 9.0)))

    checkpoint, base, vision = publish_openflamingo(read_golden("openflamingo_mpt")[1], tmp_path)
    edit_folder(base, widen)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": 48}))
    assert_as_reference(convert_openflamingo(checkpoint, base, vision, tmp_path / "out"), "openflamingo_mpt")

    (tmp_path / "llama").mkdir()
    paths = publish_openflamingo(read_golden("openflamingo_llama")[1], tmp_path / "llama")
    model = FlamingoForConditionalGeneration.from_pretrained(convert_openflamingo(*paths, tmp_path / "llama" / "out"))
    head = model.get_output_embeddings().weight
    torch.testing.assert_close(head[32:], head[:32].mean(0).expand(2, -1))


@pytest.mark.parametrize(
    ("name", "layers"), [("openflamingo_gpt_neox", "gpt_neox.layers"), ("openflamingo_opt", "model.decoder.layers")]
)
def test_otters_layout_over_the_language_models_its_code_cannot_run(name: str, layers: str, tmp_path: Path) -> None:
    metadata = read_golden(name)[1]
    weights = {f"vision_encoder.{key}": tensor for key, tensor in weights_of(metadata["vision"]).items()}
    for key, tensor in weights_of(metadata["base"]).items():
        weights["lang_encoder." + re.sub(rf"^{layers}\.(\d+)", rf"{layers}.\1.decoder_layer", key)] = tensor
    for key, tensor in weights_of(metadata["checkpoint"]).items():
        key = re.sub(r"^(perceiver\.layers\.\d+)\.0\.", r"\1.", key)
        key = re.sub(r"^(perceiver\.layers\.\d+)\.1\.", r"\1.feed_forward.", key)
        weights[key.replace("gated_cross_attn_layer.ff.", "gated_cross_attn_layer.feed_forward.")] = tensor
    config = {
        "model_type": "otter",
        "text_config": metadata["base_config"],
        "vision_config": metadata["vision_config"],
    }
    folder = save_folder(tmp_path / "otter", config, {})
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    save_tokenizer(folder)
    assert_as_reference(convert_otter(folder, tmp_path / "out"), name)


@pytest.mark.parametrize("name", [*OPENFLAMINGO, *OTTER])
def test_a_missing_and_a_left_over_key_are_named(name: str, tmp_path: Path) -> None:
    metadata = read_golden(name)[1]
    if name in OTTER:
        folder = publish_otter(metadata, tmp_path)
        keys = ["perceiver.layers.2.feed_forward.3.weight", "vision_encoder.vision_model.pre_layrnorm.bias"]
        keys += [key for key in metadata["checkpoint"] if ".3.decoder_layer" in key][:1]

        def run(edit: Any) -> None:
            edit_folder(folder, edit)
            convert_otter(folder, tmp_path / "out")
    else:
        paths = publish_openflamingo(metadata, tmp_path)
        keys = ["perceiver.layers.2.1.3.weight"]
        keys += [key for key in metadata["checkpoint"] if key.endswith(("wte.weight", "embed_tokens.weight"))]
        keys += [key for key in metadata["checkpoint"] if "embed_out" in key]

        def run(edit: Any) -> None:
            edit_torch_file(paths[0], edit)
            convert_openflamingo(*paths, tmp_path / "out")

    keys += [key for key in metadata["checkpoint"] if "3.gated_cross_attn_layer.attn_gate" in key]
    weights = weights_of(metadata["checkpoint"])
    for key in keys:
        with pytest.raises(ValueError, match=rf"missing keys \['[^,]*\b{re.escape(key)}\b[^,]*'\]"):
            run(lambda _, key=key: drop(weights, key))
    extra = "lang_encoder.some.lora_A.weight"
    with pytest.raises(ValueError, match=rf"left over keys \['{extra}'\]"):
        run(lambda _: {**weights, extra: torch.ones(1)})
    latents = torch.ones(64, 9)
    with pytest.raises(ValueError, match=r"another shape \['perceiver.latents \(64, 9\) for \(64, 8\)'\]"):
        run(lambda _: {**weights, "perceiver.latents": latents})
    assert not (tmp_path / "out").exists()


def test_other_contradictions_are_refused(tmp_path: Path) -> None:
    metadata = read_golden("openflamingo_mpt")[1]
    checkpoint, base, vision = publish_openflamingo(metadata, tmp_path)
    weights = weights_of(metadata["checkpoint"])

    def run(**changes: torch.Tensor) -> None:
        torch.save({**weights, **changes}, checkpoint)
        convert_openflamingo(checkpoint, base, vision, tmp_path / "out")

    with pytest.raises(ValueError, match="one parameter with different values"):
        run(**{"lang_encoder.gated_cross_attn_layers.1.attn_gate": torch.ones(1)})
    with pytest.raises(ValueError, match="differs from .*wte.weight., but the two are tied"):
        run(**{"lang_encoder.lm_head.weight": torch.ones(34, 16)})
    torch.save({"model": torch.ones(1)}, checkpoint)
    with pytest.raises(ValueError, match="This is no Flamingo"):
        convert_openflamingo(checkpoint, base, vision, tmp_path / "out")
    torch.save(weights, checkpoint)
    edit_folder(base, lambda base_weights: {**base_weights, "transformer.wpe.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"left over keys \['transformer.wpe.weight'\]"):
        convert_openflamingo(checkpoint, base, vision, tmp_path / "out")
    edit_folder(base, lambda base_weights: drop(base_weights, "transformer.wpe.weight"))
    edit_folder(vision, lambda tower: drop(tower, "vision_model.pre_layrnorm.bias"))
    with pytest.raises(ValueError, match=r"vision tower .* lacks weights: \['pre_layrnorm.bias'\]"):
        convert_openflamingo(checkpoint, base, vision, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("otter_mpt", {"expansion_ratio": 2}, "`expansion_ratio=2`"),
        ("otter_mpt", {"logit_scale": "inv_sqrt_d_model"}, "`logit_scale='inv_sqrt_d_model'`"),
        ("otter_mpt", {"attn_config": {"alibi": False}}, "`alibi=False`"),
        ("otter_mpt_1b", {"alibi": False}, "`alibi=False`"),
        ("otter_mpt_1b", {"n_heads": 3}, "`n_heads=3`"),
    ],
)
def test_an_mpt_that_transformers_does_not_have_is_refused(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = publish_otter(read_golden(name)[1], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        convert_otter(folder, tmp_path / "out")


def test_without_a_tokenizer_only_the_model_is_written(tmp_path: Path) -> None:
    folder = publish_otter(read_golden("otter_llama")[1], tmp_path)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    model = FlamingoForConditionalGeneration.from_pretrained(convert_otter(folder, tmp_path / "out"))
    assert model.config.image_token_id is None and not list((tmp_path / "out").glob("processor*"))
    save_tokenizer(tmp_path / "tokenizer")
    out = convert_otter(folder, tmp_path / "out", tokenizer=tmp_path / "tokenizer")
    assert_as_reference(out, "otter_llama")


# The package sets this filter itself; pytest puts its own in the place of all
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = publish_openflamingo(read_golden("openflamingo_mpt_1b")[1], tmp_path)
    otter = publish_otter(read_golden("otter_mpt")[1], tmp_path)
    for module, arguments in (("openflamingo", paths), ("otter", (otter,))):
        out = tmp_path / f"{module}_out"
        monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments), str(out)])
        runpy.run_module(f"cvreg_trainer.models.flamingo.convert_{module}", run_name="__main__")
        assert f"Wrote {out}" in capsys.readouterr().out
        assert (out / "model.safetensors").exists() and (out / "processor_config.json").exists()
