# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Data sets from local files, the built-in scenes and the built-in model: nothing here is downloaded."""

from .coco import load_coco
from .easy_vqa import load_easy_vqa
from .flickr30k import load_flickr30k
from .formats import to_messages
from .ladd import load_ladd
from .pretrained import load_base_model
from .prompts import format_row
from .scenes import make_scenes
from .sources import open_dataset


__all__ = [
    "format_row",
    "load_base_model",
    "load_coco",
    "load_easy_vqa",
    "load_flickr30k",
    "load_ladd",
    "make_scenes",
    "open_dataset",
    "to_messages",
]
