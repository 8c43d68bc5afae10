# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The looks that a training's model takes at the rows, from the first pass over them to the verdict.

Notable: all processes take part in a look, but only the main one keeps the results. On the others the rows have names
and no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers.trainer_utils import has_length

from .checkpoint import load_looks, save_looks
from .known_rows import check_same_rows
from .main_process import on_main_process
from .passes.scoring_pass import read_rows, score_rows
from .passes.token_statistics import TokenStatistics
from .verdict.rest import RestOfRows


@dataclass(frozen=True)
class Looks:
    """
    Looks at the rows of a training.

    Args:
        base ([`TokenStatistics`]):
            The base model's, on the images as they are.
        warm, other ([`TokenStatistics`], *optional*):
            The warmed-up model's, on strong views of the rows' own images and of others'; none before the cut.
        rest ([`RestOfRows`], *optional*):
            Rows that are not looked at, because there are more than `screening_rows`.
    """

    base: TokenStatistics
    warm: TokenStatistics | None = None
    other: TokenStatistics | None = None
    rest: RestOfRows | None = None

    @classmethod
    def first(cls, trainer: Any, rows: Any, reads_rows: bool) -> Looks:
        """
        The base model's look.

        Args:
            trainer ([`CrossViewDefenseTrainer`]):
                Trainer in its training loop.
            rows:
                The rows, map-style or streamed. All rows of a stream are looked at: they have no positions to draw.
            reads_rows (`bool`):
                Whether pixels are made from the images in the rows; see [`finds_images_in_rows`].
        """
        most, looked_at = trainer.args.screening_rows, None
        if has_length(rows) and len(rows) > most:
            looked_at = _draw(len(rows), most, trainer.args.seed)
        base = score_rows(trainer, rows, with_views=False, reads_rows=reads_rows, keeps="features", places=looked_at)
        if looked_at is None:
            return cls(base)
        others = np.setdiff1d(np.arange(len(rows)), looked_at, assume_unique=True)
        return cls(base, rest=RestOfRows(looked_at, read_rows(trainer, rows, others, reads_rows)))

    def again(self, trainer: Any, rows: Any, reads_rows: bool) -> Looks:
        """
        The base model's look and the two looks of the model as it is now; see [`Looks.first`].

        Raises:
            `ValueError`: if the rows are not those of the first look.
        """
        looked_at = None if self.rest is None else self.rest.looked_at
        warm, other = (
            score_rows(trainer, rows, with_views=True, reads_rows=reads_rows, keeps=keeps, places=looked_at)
            for keeps in ("states", "others")
        )
        check_same_rows(self.base, warm)
        return Looks(self.base, warm, other, self.rest)

    @property
    def is_done(self) -> bool:
        """Whether all looks have been taken."""
        return self.warm is not None

    @property
    def all_three(self) -> tuple[TokenStatistics, TokenStatistics, TokenStatistics]:
        """The base model's look, and the warmed-up model's at own and at others' images, once they have been taken."""
        assert self.warm is not None and self.other is not None
        return self.base, self.warm, self.other

    def __len__(self) -> int:
        return len(self.row_ids)

    @cached_property
    def row_ids(self) -> np.ndarray:
        """Names of all rows, in their order. Shape `(R,)`, int64."""
        return self.base.row_ids if self.rest is None else self.rest.merge(self.base.row_ids, self.rest.rows.row_ids)

    @cached_property
    def sorted_ids(self) -> np.ndarray:
        """The names of the rows, each once, in ascending order."""
        return np.unique(self.row_ids)

    @property
    def tokens(self) -> TokenStatistics:
        """The look at the rows' own images, with the tokens of the rows that were not looked at."""
        _, warm, _ = self.all_three
        return warm if self.rest is None else self.rest.merge_tokens(warm)

    @property
    def losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean negative log-likelihood of each row's tokens before the warm-up and after it. `(R,)` each."""
        before, after, _ = (look.row_nll for look in self.all_three)
        if self.rest is not None:
            unknown = np.full(len(self.rest.rows), np.nan)
            before, after = self.rest.merge(before, unknown), self.rest.merge(after, unknown)
        return before, after

    def parted(self, most: int, seed: int) -> Looks:
        """
        The same, as if no more than `most` rows had been looked at. All rows of a stream have been, and among too many
        rows even honest words have causes.

        Args:
            most (`int`):
                Largest number of rows to base a verdict on.
            seed (`int`):
                Draws them.
        """
        number = len(self.base)
        if self.rest is not None or number <= most:
            return self
        chosen = _draw(number, most, seed)
        base, warm, other = (look.take(chosen) for look in self.all_three)
        others = self.base.take(np.setdiff1d(np.arange(number), chosen, assume_unique=True))
        return Looks(base, warm, other, RestOfRows(chosen, others))

    def shared(self) -> Looks:
        """The same looks, with rows and tokens in memory only once."""
        base, warm, other = self.all_three
        return Looks(base, warm.sharing(base), other.sharing(base), self.rest)

    def save(self, folder: str | Path) -> None:
        """Write them into a checkpoint."""
        save_looks(folder, {"base": self.base, "warm": self.warm, "other": self.other}, self.rest)

    @classmethod
    def load(cls, accelerator: Any, folder: str | Path) -> Looks | None:
        """
        Read what [`Looks.save`] wrote, if there is anything; all processes take part.

        Raises:
            `ValueError`: if another version wrote it, whose screening read other features of the rows.
        """
        read: list[Looks | None] = []

        def read_names() -> Looks | None:
            looks, rest = load_looks(folder)
            read.append(cls(**looks, rest=rest) if looks else None)
            return None if read[0] is None else read[0]._names()

        names = on_main_process(accelerator, read_names)
        return read[0] if read else names

    def _names(self) -> Looks:
        """The looks as processes other than the main one hold them."""
        base = TokenStatistics.of_rows(self.base.row_ids)
        again = base if self.is_done else None
        rest = self.rest and RestOfRows(self.rest.looked_at, TokenStatistics.of_rows(self.rest.rows.row_ids))
        return Looks(base, again, again, rest)


def _draw(number: int, most: int, seed: int) -> np.ndarray:
    """Positions of `most` of `number` rows, drawn at random, ascending. Shape `(most,)`, int64."""
    # Not by the seed alone: an experiment may have drawn its poisoned rows with the same seed
    rng = np.random.Generator(np.random.PCG64([seed, number, most]))
    return np.sort(rng.choice(number, most, replace=False))
