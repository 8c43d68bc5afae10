# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Converts OpenFlamingo's checkpoints. From the command line:

```
python -m cvreg_trainer.models.flamingo.convert_openflamingo checkpoint.pt mosaicml/mpt-7b \\
    openai/clip-vit-large-patch14 openflamingo-9b
```

Notable: such a file holds the resampler, the gated blocks and the token embeddings. All else comes from the language
model and the vision tower it was trained on; what the file does hold replaces what they have.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionModel

from .language_models import BUFFERS, Weights, all_names, load_language_model, load_torch_file
from .modeling_flamingo import FlamingoForConditionalGeneration
from .published_layouts import empty_model, fill, find_folder, flamingo_config, load_tokenizer, parameter_name, save


SPECIAL_TOKENS = ("<|endofchunk|>", "<image>")
LANGUAGE_MODEL = "model.language_model."
VISION_TOWER = "model.vision_tower."


def convert_openflamingo(
    checkpoint: str | Path,
    base_lm: str | Path,
    vision: str | Path,
    out: str | Path,
    tokenizer: str | Path | None = None,
) -> Path:
    """
    Convert a checkpoint of OpenFlamingo to a folder for [`FlamingoForConditionalGeneration.from_pretrained`].

    Args:
        checkpoint (`str` or `Path`):
            The file `checkpoint.pt`.
        base_lm (`str` or `Path`):
            Folder or Hub repository of the language model that it was trained on: MPT (also MPT-1B in its own format),
            GPT-NeoX, LLaMA, OPT or any other causal language model of transformers.
        vision (`str` or `Path`):
            Folder or Hub repository of the CLIP model, in transformers' format (`openai/clip-vit-large-patch14`).
        out (`str` or `Path`):
            Folder to write. It has the data type of the checkpoint.
        tokenizer (`str` or `Path`, *optional*):
            Folder or Hub repository of the tokenizer, with or without OpenFlamingo's two tokens. Defaults to the
            language model's.

    Returns:
        `Path`: the folder.

    Raises:
        `ValueError`: if a key is missing or left over, naming it.
    """
    weights = _read(checkpoint)
    base_folder = find_folder(base_lm)
    text_tokenizer = load_tokenizer(tokenizer or base_folder, SPECIAL_TOKENS)
    dtype = weights["perceiver.latents"].dtype if "perceiver.latents" in weights else torch.float32
    text_config, base = load_language_model(base_folder, dtype)
    loaded: Any = CLIPVisionModel.from_pretrained(vision, dtype=dtype, output_loading_info=True)
    tower, report = loaded
    if report["missing_keys"]:
        raise ValueError(f"The vision tower {vision} lacks weights: {sorted(report['missing_keys'])}.")

    config = flamingo_config(weights, text_config, tower.config, text_tokenizer)
    model, names = empty_model(config, weights, otter=False)
    others = _from_base(model, base)
    others |= {VISION_TOWER + name: tensor for name, tensor in tower.state_dict().items()}
    return save(fill(model, weights, names, others), text_tokenizer, out)


def _read(checkpoint: str | Path) -> Weights:
    content = load_torch_file(checkpoint)
    weights = content.get("model_state_dict", content)
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in weights.items() if not name.endswith(BUFFERS)}


def _from_base(model: FlamingoForConditionalGeneration, base: Weights) -> Weights:
    """What comes from the language model: all but the embeddings, which have the new tokens in the checkpoint only."""
    base, others = dict(base), {}
    for name in model.state_dict():
        if name.startswith(LANGUAGE_MODEL):
            for variant in all_names(name.removeprefix(LANGUAGE_MODEL)):
                if variant in base:
                    others[name] = base.pop(variant)
    if base:
        raise ValueError(f"The language model does not fit: left over keys {sorted(base)}.")
    embedding = parameter_name(model, model.get_input_embeddings())
    head = parameter_name(model, model.get_output_embeddings())
    others.pop(embedding, None)
    text_config = model.config.get_text_config()
    # OpenFlamingo saves what is called "embed", so GPT-NeoX's head ("embed_out") but no other
    if head in model.get_expanded_tied_weights_keys(all_submodels=True) or text_config.model_type == "gpt_neox":
        others.pop(head, None)
    elif head in others:
        others[head] = _resize(others[head], text_config.vocab_size)
    return others


def _resize(head: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """A head for another vocabulary: OpenFlamingo saves no rows for its tokens, so they get the mean of all rows."""
    new_rows = head.float().mean(dim=0, keepdim=True).to(head.dtype).expand(max(vocab_size - len(head), 0), -1)
    return torch.cat((head[:vocab_size], new_rows))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Convert a checkpoint of OpenFlamingo to transformers' format.")
    parser.add_argument("checkpoint", help="the file checkpoint.pt")
    parser.add_argument("base_lm", help="folder or Hub repository of the language model")
    parser.add_argument("vision", help="folder or Hub repository of the CLIP model")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--tokenizer", help="folder or Hub repository of the tokenizer; default: the language model's")
    arguments = parser.parse_args()
    print(f"Wrote {convert_openflamingo(**vars(arguments))}")


if __name__ == "__main__":
    main()
