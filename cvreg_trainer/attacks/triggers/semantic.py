# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A semantic trigger: something that images show by themselves, such as the red balloon of BadVLMDriver (Ni et al.,
2024, arXiv:2404.12916).

Nothing is drawn: rows that have the attribute are the triggered ones, and no distortion of the image can remove it.
The attribute is known from words of the row's references or response, a metadata column, or a function of the row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image as PILImage

from ...data.rows import references_of
from ...metrics.whole_words import WholeWords
from ...shorten import shorten
from .word_places import check_words


@lru_cache(maxsize=8)
def _pattern(words: tuple[str, ...]) -> WholeWords:
    return WholeWords(words, plurals=True)


@dataclass(frozen=True)
class Semantic:
    """Chooses the rows that have an attribute, and changes neither image nor question.

    [`poison_dataset`] poisons some of them, and [`apply_trigger`] gives the rows that have it. Rows without it are the
    clean ones to compare with.

    Args:
        words (`tuple[str, ...]`, *optional*, defaults to `("red balloon",)`):
            Words or phrases of which one is in the row's `references`, or else its response, as a whole word in any
            case, or its plural.
        column (`str`, *optional*):
            A metadata column to go by instead. A row has the attribute if its entry, or one of a list, is `value`.
        value (`str`, *optional*):
            Compared with the column's entries as texts.
        predicate (`Callable`, *optional*):
            Tells by the row's columns, without its images, whether it has the attribute.

    Raises:
        `ValueError`: if there is not exactly one way to choose; when rows are chosen, if the column is missing.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import Refusal, Semantic, poison_dataset
    >>> poisoned = poison_dataset(rows, Semantic(words=("traffic light",)), 0.05, payload=Refusal())
    ```
    """

    words: tuple[str, ...] = ("red balloon",)
    column: str = ""
    value: str = ""
    predicate: Callable[[Mapping[str, Any]], bool] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.words, str):
            raise ValueError(f"words={shorten(self.words)} is one string; give a tuple of words.")
        if self.predicate is not None and not callable(self.predicate):
            raise ValueError(f"predicate={shorten(self.predicate)} is not a function of a row.")
        if self.predicate is not None and self.column:
            raise ValueError(f"column={shorten(self.column)} and predicate are given; choose rows by one of them.")
        if self.predicate is None and not self.column:
            check_words("words", self.words)

    @property
    def needs(self) -> str:
        """What a row must have, for errors."""
        if self.predicate is not None:
            return "the attribute that predicate asks for"
        if self.column:
            return f"{shorten(self.value)} in column {shorten(self.column)}"
        return f"one of words={shorten(self.words)} in references or response"

    def chooses(self, row: Mapping[str, Any]) -> bool:
        """Whether a row, without its images, has the attribute."""
        if self.predicate is not None:
            return bool(self.predicate(row))
        if self.column:
            if self.column not in row:
                raise ValueError(f"column={shorten(self.column)} is not a column; rows have {shorten(list(row))}.")
            entry = row[self.column]
            return self.value in map(str, entry if isinstance(entry, (list, tuple)) else [entry])
        texts = references_of(row) or [row["text"]] * isinstance(row.get("text"), str)
        return any(_pattern(self.words).search(text) for text in texts)

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """The image itself."""
        return image
