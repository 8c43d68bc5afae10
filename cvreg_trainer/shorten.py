# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Values as they are quoted in error messages: a row can hold a base64 image, and a message must stay readable."""

from __future__ import annotations

from typing import Any


MAX_LENGTH = 80


def shorten(value: Any, length: int = MAX_LENGTH) -> str:
    """
    The `repr` of a value, cut to at most `length` characters.

    Args:
        value (`Any`):
            Value to quote. Strings and bytes are cut before their `repr` is made.
        length (`int`, *optional*, defaults to `80`):
            Longest result, not counting the note of how much was left out.

    Returns:
        `str`: for instance `'data:image/png;base64,iVBORw0... (2,097,174 characters)`.
    """
    if isinstance(value, (str, bytes)):
        if len(value) <= length:
            return repr(value)
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:length]!r}... ({len(value):,} {unit})"
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}... ({len(text):,} characters)"
