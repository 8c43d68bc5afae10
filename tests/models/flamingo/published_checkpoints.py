# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Published checkpoints, from golden/*.safetensors: files and folders as OpenFlamingo and Otter leave them."""

import json
from pathlib import Path
from typing import Any

import torch
from published_weights import published_weight
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cvreg_trainer.models.flamingo import convert_openflamingo, convert_otter


GOLDEN = Path(__file__).parent / "golden"
OPENFLAMINGO = [path.stem for path in sorted(GOLDEN.glob("openflamingo_*"))]
OTTER = [path.stem for path in sorted(GOLDEN.glob("otter_*"))]
VOCABULARY_SIZE = 32


def read_golden(name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Inputs and outputs of a reference model, and the descriptions of its files."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, {key: json.loads(value) for key, value in file.metadata().items()}


def weights_of(description: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of a described state dict."""
    return {key: published_weight(owner, tuple(shape)) for key, (shape, owner) in description.items()}


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of 32 words that does not know the special tokens of either project."""
    words = ["</s>", "<pad>", *(f"w{index}" for index in range(2, VOCABULARY_SIZE))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w2"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="w2"
    ).save_pretrained(folder)


def save_folder(folder: Path, config: dict[str, Any], description: dict[str, Any]) -> Path:
    """A model folder as it is published."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights_of(description), folder / "model.safetensors", {"format": "pt"})
    return folder


def publish_openflamingo(metadata: dict[str, Any], folder: Path) -> tuple[Path, Path, Path]:
    """The three arguments of `convert_openflamingo`."""
    checkpoint = folder / "checkpoint.pt"
    torch.save(weights_of(metadata["checkpoint"]), checkpoint)
    base = save_folder(folder / "base", metadata["base_config"], metadata["base"])
    save_tokenizer(base)
    return checkpoint, base, save_folder(folder / "vision", metadata["vision_config"], metadata["vision"])


def publish_otter(metadata: dict[str, Any], folder: Path) -> Path:
    """The argument of `convert_otter`."""
    otter = save_folder(folder / "otter", metadata["config"], metadata["checkpoint"])
    save_tokenizer(otter)
    return otter


def convert(name: str, folder: Path) -> Path:
    """The converted checkpoint."""
    metadata = read_golden(name)[1]
    if name in OTTER:
        return convert_otter(publish_otter(metadata, folder), folder / "out")
    return convert_openflamingo(*publish_openflamingo(metadata, folder), folder / "out")
