# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows and data sets: opened from wherever they are, checked, and brought into the form that collators take."""

from .coco import load_coco
from .easy_vqa import load_easy_vqa
from .export import export_rows
from .flickr30k import load_flickr30k
from .formats import mark_poisoned, to_messages
from .ladd import load_ladd
from .prompts import format_row
from .sources import open_dataset


__all__ = [
    "export_rows",
    "format_row",
    "load_coco",
    "load_easy_vqa",
    "load_flickr30k",
    "load_ladd",
    "mark_poisoned",
    "open_dataset",
    "to_messages",
]
