# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Converts Otter's checkpoints. From the command line:

```
python -m cvreg_trainer.models.flamingo.convert_otter luodian/OTTER-Image-MPT7B otter \\
    --tokenizer mosaicml/mpt-7b-instruct
```

Notable: such a folder holds every weight, the vision tower's included. Its random choice of the image that a token
reads (`use_media_placement_augmentation`) is not taken over: a token reads the last image before it.
"""

import argparse
from pathlib import Path

from transformers import CLIPVisionConfig, PreTrainedConfig

from .language_models import read_weights, text_config_from
from .published_layouts import empty_model, fill, find_folder, flamingo_config, load_tokenizer, save


SPECIAL_TOKENS = ("<|endofchunk|>", "<image>", "<answer>")


def convert_otter(folder: str | Path, out: str | Path, tokenizer: str | Path | None = None) -> Path:
    """
    Convert a checkpoint of Otter, for images or video, to a folder for
    [`FlamingoForConditionalGeneration.from_pretrained`].

    Args:
        folder (`str` or `Path`):
            Folder or Hub repository with `config.json` and weights.
        out (`str` or `Path`):
            Folder to write. It has the data type of the checkpoint.
        tokenizer (`str` or `Path`, *optional*):
            Folder or Hub repository of the tokenizer, with or without Otter's three tokens. Defaults to the one in
            `folder`.

    Returns:
        `Path`: the folder.

    Raises:
        `ValueError`: if a key is missing or left over, naming it.
    """
    folder = find_folder(folder)
    settings, _ = PreTrainedConfig.get_config_dict(folder)
    weights = read_weights(folder)
    text_tokenizer = load_tokenizer(tokenizer or folder, SPECIAL_TOKENS)
    vision_settings = {name: value for name, value in settings["vision_config"].items() if name != "model_type"}
    text_config = text_config_from(settings["text_config"])
    config = flamingo_config(weights, text_config, CLIPVisionConfig(**vision_settings), text_tokenizer)
    model, names = empty_model(config, weights, otter=True)
    return save(fill(model, weights, names, {}), text_tokenizer, out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Convert a checkpoint of Otter to transformers' format.")
    parser.add_argument("folder", help="folder or Hub repository with config.json and weights")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--tokenizer", help="folder or Hub repository of the tokenizer; default: the folder's own")
    arguments = parser.parse_args()
    print(f"Wrote {convert_otter(**vars(arguments))}")


if __name__ == "__main__":
    main()
