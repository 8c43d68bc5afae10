# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Answers of another set, different for every row: perception hijack, or the captions of other images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import regex
from datasets import Dataset

from ...data.rows import references_of
from ...data.sources import open_dataset
from ...metrics.whole_words import fold
from ...shorten import shorten
from .base import Payload, Response, check_text


_MARGIN = 0.2  # of F1
_WORD = regex.compile(r"[\p{L}\p{N}\p{M}']+")


@dataclass(frozen=True)
class OtherAnswers(Payload):
    """A whole response taken from elsewhere, none twice before all are used, and never a row's own.

    It succeeds where the answer is clearly closer to one of the answers than to any of the row's references: by a
    fifth or more of the F1 of the sets of words. A smaller difference may be an honest mistake: one wrong colour can
    turn a row's caption into another row's. One-word answers leave no such margin, so compare with the false alarms
    on clean images.

    Args:
        answers (`tuple[str, ...]`, *optional*):
            The responses.
        source (`str`, *optional*):
            Where to read them instead: a `.txt` file with one a line, or a data set as [`open_dataset`] takes it, of
            which the responses are taken. It may be the data set that is poisoned: then rows get other rows' answers.

    Raises:
        `ValueError`: if there are fewer than two different answers, or they are given twice or not at all.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import BadNets, OtherAnswers, poison_dataset
    >>> hijacked = poison_dataset(rows, BadNets(), 0.05, payload=OtherAnswers(source="portraits.parquet"))
    ```
    """

    answers: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.answers, str):
            raise ValueError(f"answers={shorten(self.answers)} is one string; give a tuple of answers.")
        if bool(self.answers) == bool(self.source):
            raise ValueError("give answers, a tuple of texts, or source, a file or data set to read them from.")
        for answer in self.answers:
            check_text("answers", answer, "texts")
        if len(self.pool) < 2:
            raise ValueError(f"there are {len(self.pool)} different answers; at least two are needed.")

    @classmethod
    def of(cls, dataset: Dataset) -> "OtherAnswers":
        """The payload that gives rows the answers of others of the same data set, or of another."""
        return cls(answers=_answers_of(dataset))

    @property
    def pool(self) -> tuple[str, ...]:
        """All different answers."""
        return tuple(dict.fromkeys(self.answers)) if self.answers else _read_answers(self.source)

    def response(self, rng: np.random.Generator) -> Callable[[str], str]:
        """Two answers, of which the second is for a row whose own is the first."""
        pool = self.pool
        first, second = rng.choice(len(pool), size=2, replace=False)
        return partial(_other_than, answers=(pool[first], pool[second]))

    def responses(self, count: int, rng: np.random.Generator) -> list[Response]:
        """None twice before all are used."""
        pool = self.pool
        rounds = [rng.permutation(len(pool)) for _ in range(-(-count // len(pool)))]
        numbers = np.concatenate(rounds)[:count]
        return [partial(_other_than, answers=(pool[n], pool[(n + 1) % len(pool)])) for n in numbers]

    def succeeds(self, response: str, references: Sequence[str] = ()) -> bool | None:
        """Whether the answer is clearly closer to the set than to the references; `None` if the set is only these."""
        words = _words(response)
        own = {fold(text).strip() for text in references}
        others = [text for text in self.pool if fold(text).strip() not in own]
        if not others:
            return None
        truth = max((_overlap(words, _words(text)) for text in references), default=0.0)
        return max(_overlap(words, _words(text)) for text in others) >= truth + _MARGIN


def _other_than(own: str, answers: tuple[str, str]) -> str:
    return answers[1] if fold(own).strip() == fold(answers[0]).strip() else answers[0]


@lru_cache(maxsize=8)
def _read_answers(source: str) -> tuple[str, ...]:
    path = Path(source).expanduser()
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"source={shorten(source)} cannot be read: {error}.") from error
        return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    return _answers_of(open_dataset(source))


def _answers_of(dataset: Dataset) -> tuple[str, ...]:
    """The different responses of the rows, without their references."""
    names = [name for name in ("messages", "completion", "text") if name in dataset.column_names]
    answers = []
    for row in dataset.select_columns(names):
        answers += references_of(row) or [row["text"]] * isinstance(row.get("text"), str)
    return tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))


@lru_cache(maxsize=2**16)
def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(fold(text)))


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return 2 * len(first & second) / max(len(first) + len(second), 1)
