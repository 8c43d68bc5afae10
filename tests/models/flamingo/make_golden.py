# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Runs the reference implementations of OpenFlamingo and Otter on tiny random checkpoints, for golden/*.safetensors.

Run once, in an environment of its own (Python 3.11):

    pip install torch==2.13.0
    pip install transformers==4.35.1 accelerate==0.24.1 "numpy<2" einops einops-exts pillow sentencepiece
    pip install --no-deps open-flamingo==2.0.1 otter-ai==0.0.0a8 peft==0.6.0
    python tests/models/flamingo/make_golden.py

Notable:
- Each file holds inputs, logits, loss and greedily chosen tokens; its metadata hold the configurations, and the keys
  and shapes of the checkpoint, of its language model and of its vision tower, in the published layouts. The weights
  are those of `published_weight`. Resampler and gated blocks have the sizes of the published checkpoints but for the
  width.
- Everything is computed in float64. In float32 MPT-1B's own logits are up to 1e-4 off, which is as much as a
  comparison allows.
"""

import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
import transformers
from published_weights import published_weight
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)


# open_flamingo imports OpenCLIP for its factory, which is not used here
sys.modules["open_clip"] = types.ModuleType("open_clip")
from open_flamingo.src.flamingo import Flamingo  # noqa: E402
from open_flamingo.src.flamingo_lm import FlamingoLMMixin  # noqa: E402
from open_flamingo.src.utils import extend_instance  # noqa: E402
from otter_ai.models.mpt.configuration_mpt import MPTConfig  # noqa: E402
from otter_ai.models.mpt_redpajama.configuration_mosaic_gpt import MosaicGPTConfig  # noqa: E402
from otter_ai.models.mpt_redpajama.mosaic_gpt import MosaicGPT  # noqa: E402
from otter_ai.models.otter import modeling_otter  # noqa: E402
from otter_ai.models.otter.configuration_otter import OtterConfig  # noqa: E402


VOCAB, WIDTH, VISION_WIDTH, LAYERS = 32, 16, 8, 4
END_OF_CHUNK, IMAGE, ANSWER = VOCAB, VOCAB + 1, VOCAB + 2
GOLDEN = Path(__file__).parent / "golden"

VISION = CLIPVisionConfig(
    hidden_size=VISION_WIDTH,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=8,
    patch_size=4,
    hidden_act="quick_gelu",
)
LLAMA = LlamaConfig(
    vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=LAYERS, num_attention_heads=2
)
OPT = OPTConfig(
    vocab_size=VOCAB,
    hidden_size=WIDTH,
    word_embed_proj_dim=WIDTH,
    ffn_dim=24,
    num_hidden_layers=LAYERS,
    num_attention_heads=2,
    max_position_embeddings=64,
)
NEOX = GPTNeoXConfig(
    vocab_size=VOCAB,
    hidden_size=WIDTH,
    intermediate_size=24,
    num_hidden_layers=LAYERS,
    num_attention_heads=2,
    rotary_pct=0.5,
    use_parallel_residual=False,
)
SIZES = {"d_model": WIDTH, "n_heads": 2, "n_layers": LAYERS, "vocab_size": VOCAB, "max_seq_len": 64}
MPT = MptConfig(**SIZES)
MPT_1B = MosaicGPTConfig(**SIZES, attn_impl="torch", attn_qk_ln=True, alibi=True, no_bias=True)
OTTER_MPT = MPTConfig(**SIZES, attn_config={"attn_impl": "torch", "alibi": True}, no_bias=True)

# name: language model, its class, path of its decoder layers, gated block before every n-th layer
OPENFLAMINGO = {
    "mpt": (MPT, MptForCausalLM, "transformer.blocks", 2),
    "mpt_1b": (MPT_1B, MosaicGPT, "transformer.blocks", 1),
    "gpt_neox": (NEOX, GPTNeoXForCausalLM, "gpt_neox.layers", 2),
    "llama": (LLAMA, LlamaForCausalLM, "model.layers", 4),
    "opt": (OPT, OPTForCausalLM, "model.decoder.layers", 3),
}
# name: language model, its class's name, frames
OTTER = {
    "mpt": (OTTER_MPT, "MPTForCausalLM", 1, 2),
    "mpt_1b": (MPT_1B, "MosaicGPT", 1, 1),
    "llama": (LLAMA, "LlamaForCausalLM", 1, 4),
    "llama_video": (LLAMA, "LlamaForCausalLM", 3, 2),
}


def set_weights(model: torch.nn.Module, prefix: str = "") -> None:
    for name, parameter in model.named_parameters():
        parameter.data = published_weight(prefix + name, tuple(parameter.shape))


def describe(state: dict[str, torch.Tensor], prefix: str = "") -> dict[str, Any]:
    """Keys and shapes, and the key whose weight it is: tied parameters have two keys."""
    owners: dict[int, str] = {}
    return {
        name: [list(tensor.shape), owners.setdefault(tensor.data_ptr(), prefix + name)]
        for name, tensor in state.items()
        if tensor.is_floating_point()
    }


def make_inputs(frames: int) -> dict[str, torch.Tensor]:
    """Three rows: two images; text, an image and right padding; left padding and no image."""
    pad = 1
    rows = [
        [IMAGE, 5, 6, 7, 8, END_OF_CHUNK, IMAGE, 9, 10, END_OF_CHUNK],
        [11, 12, IMAGE, 13, 14, END_OF_CHUNK, pad, pad, pad, pad],
        [pad, pad, pad, 15, 16, 17, 18, 19, 20, END_OF_CHUNK],
    ]
    if frames > 1:
        rows[0][6] = 21
    input_ids = torch.tensor(rows)
    attention_mask = (input_ids != pad).long()
    labels = input_ids.masked_fill((attention_mask == 0) | (input_ids == IMAGE), -100)
    labels[2, 3] = -100  # what padding predicts is nobody's business
    images = 2 if frames == 1 else 1
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(3, images, frames, 3, 8, 8, generator=generator)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, "pixel_values": pixel_values}


@torch.no_grad()
def run(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.double().eval()
    inputs = {**inputs, "pixel_values": inputs["pixel_values"].double()}
    texts = {"attention_mask": inputs["attention_mask"], "labels": inputs["labels"]}
    output = model(inputs["pixel_values"], inputs["input_ids"], **texts)
    # The first row, continued greedily, each time from the whole text: both projects' caches differ from that
    ids, pixels = inputs["input_ids"][:1], inputs["pixel_values"][:1]
    for _ in range(8):
        logits = model(pixels, ids, attention_mask=torch.ones_like(ids)).logits[:, -1]
        logits[0, ids[0]] = -torch.inf  # no token twice: neither loops nor an image that is not there
        ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), dim=1)
    greedy = ids[:, inputs["input_ids"].shape[1] :]
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.float32)
    return {**inputs, "logits": output.logits, "loss": output.loss.reshape(1), "greedy": greedy}


def write(name: str, tensors: dict[str, torch.Tensor], **metadata: Any) -> None:
    GOLDEN.mkdir(exist_ok=True)
    tensors = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    save_file(tensors, GOLDEN / f"{name}.safetensors", {key: json.dumps(value) for key, value in metadata.items()})
    print(f"{name:24} loss {float(tensors['loss']):.4f}  greedy {tensors['greedy'].tolist()}")


class Tower(torch.nn.Module):
    """CLIP as OpenCLIP returns it with `output_tokens`: pooled, and the tokens before the last norm."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = CLIPVisionModel(VISION)
        set_weights(self.clip, "vision.")

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.clip(pixels)
        return output.pooler_output, output.last_hidden_state[:, 1:]


class EmbeddingMixin:
    """What OpenFlamingo's factory adds to MPT-1B."""

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.transformer.wte  # type: ignore[attr-defined]

    def set_input_embeddings(self, embeddings: torch.nn.Module) -> None:
        self.transformer.wte = embeddings  # type: ignore[attr-defined]


def published_openflamingo(model: Flamingo) -> dict[str, torch.Tensor]:
    """As OpenFlamingo's `filter_state_dict_to_trainable` leaves it."""
    state = model.state_dict()
    for name, parameter in model.named_parameters():
        if "embed" not in name and not parameter.requires_grad:
            state.pop(name)
    unwanted = ("lang_encoder.old_decoder_blocks", "lang_encoder.gated_cross_attn_layers", "vision_encoder")
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in unwanted)}


def make_openflamingo(name: str) -> None:
    config, model_class, layers, every = OPENFLAMINGO[name]
    config = type(config).from_dict(config.to_dict())
    language_model = model_class(config)
    set_weights(language_model, "base.")
    base = describe(language_model.state_dict(), "base.")
    base_config = {**config.to_dict(), "architectures": [model_class.__name__]}
    if model_class is MosaicGPT:
        extend_instance(language_model, EmbeddingMixin)
    extend_instance(language_model, FlamingoLMMixin)
    language_model.set_decoder_layers_attr_name(layers)
    language_model.resize_token_embeddings(VOCAB + 2)
    head = language_model.get_output_embeddings()
    if name == "llama":
        # Rows that the reference draws at random and never saves
        head.weight.data[VOCAB:] = head.weight.data[:VOCAB].mean(0)
    tower = types.SimpleNamespace(visual=Tower())
    model = Flamingo(tower, language_model, END_OF_CHUNK, IMAGE, VISION_WIDTH, every)
    model.requires_grad_(False)
    for part in (model.perceiver, language_model.gated_cross_attn_layers, language_model.get_input_embeddings()):
        part.requires_grad_(True)
    state = published_openflamingo(model)
    for key, parameter in model.named_parameters():
        if key in state:
            parameter.data = published_weight(key, tuple(parameter.shape))
    write(
        f"openflamingo_{name}",
        run(model, make_inputs(frames=1)),
        checkpoint=describe(published_openflamingo(model)),
        base=base,
        base_config=base_config,
        vision=describe(tower.visual.clip.state_dict(), "vision."),
        vision_config=VISION.to_dict(),
    )


def make_otter(name: str) -> None:
    config, architecture, frames, every = OTTER[name]
    tokenizer = types.SimpleNamespace(
        add_special_tokens=lambda tokens: None,
        pad_token="<pad>",
        encode=lambda text: [{"<|endofchunk|>": END_OF_CHUNK, "<image>": IMAGE}[text]],
    )
    # The reference takes tokenizers from the Hub by fixed names, and a width of 1024 for granted
    modeling_otter.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda name: tokenizer)
    resampler, block = modeling_otter.OtterPerceiverResampler, modeling_otter.OtterGatedCrossAttentionBlock
    modeling_otter.OtterPerceiverResampler = lambda dim, **kwargs: resampler(dim=VISION_WIDTH, **kwargs)
    modeling_otter.OtterGatedCrossAttentionBlock = lambda dim, dim_visual: block(dim=dim, dim_visual=VISION_WIDTH)
    try:
        text_config = {**config.to_dict(), "vocab_size": VOCAB + 3, "architectures": [architecture]}
        text_config["hidden_size"] = WIDTH  # as in the published files; MPT's own name for it is another
        otter_config = OtterConfig(VISION.to_dict(), dict(text_config), cross_attn_every_n_layers=every)
        if frames > 1:
            otter_config.max_num_frames = frames + 2
        model = modeling_otter.OtterForConditionalGeneration(otter_config)
    finally:
        modeling_otter.OtterPerceiverResampler, modeling_otter.OtterGatedCrossAttentionBlock = resampler, block
    set_weights(model)
    settings = {**otter_config.to_dict(), "text_config": text_config, "vision_config": VISION.to_dict()}
    write(
        f"otter_{name}",
        run(model, make_inputs(frames)),
        checkpoint=describe(model.state_dict()),
        config=settings,
    )


if __name__ == "__main__":
    # Softmax is taken in what `float` returns, or in float32, where the least float64 would be minus infinity
    to_float, limits = torch.Tensor.float, torch.finfo(torch.float32)
    torch.Tensor.float = lambda self: self if self.dtype == torch.float64 else to_float(self)
    torch.finfo = lambda dtype=None: limits
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    torch.manual_seed(0)
    for make, names in ((make_openflamingo, OPENFLAMINGO), (make_otter, OTTER)):
        for case in names:
            make(case)
