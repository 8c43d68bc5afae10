# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Words put at random places of a question, as BackdoorVLM's text triggers are.

The place is a function of the seed and the text. Questions of a data set are often all the same: `vary` gives each row
a seed of its own, so that the word wanders even there.
"""

import re
from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ...shorten import shorten
from ..placeholders import placeholders


Seeded = TypeVar("Seeded")


def check_words(name: str, words: Collection[str]) -> None:
    """Raises a `ValueError` if there are none, or one of them is empty or a placeholder of an image."""
    if not words:
        raise ValueError(f"{name} is empty; give what is put into the question.")
    for word in words:
        if not word.strip():
            raise ValueError(f"{name}={shorten(word)} is empty; give what is put into the question.")
        if placeholders(word):
            raise ValueError(f"{name}={shorten(word)} holds an image's placeholder; leave it out.")


def insert_words(text: str, words: Collection[str], rng: np.random.Generator) -> str:
    """The text with each word before one of its own words or at its end; all else as it was."""
    for word in words:
        places = [match.start() for match in re.finditer(r"\S+", text)]
        number = rng.integers(len(places) + 1)
        if number < len(places):
            text = f"{text[: places[number]]}{word} {text[places[number] :]}"
        else:
            kept = text.rstrip()
            text = f"{kept}{' ' if kept else ''}{word}{text[len(kept) :]}"
    return text


def text_rng(seed: int, text: str) -> np.random.Generator:
    """Random numbers that are a function of a seed and a text."""
    return np.random.default_rng([seed, *text.encode()])


def reseeded(attack: Seeded, seed: int, rng: np.random.Generator) -> Seeded:
    """The attack with a seed drawn for one row, which depends on its own seed too."""
    return replace(attack, seed=seed ^ int(rng.integers(2**31)))  # type: ignore[type-var]
