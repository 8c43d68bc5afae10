# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How surprised a model is at each supervised token of each row, in flat arrays that fit into a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch


DTYPES = {
    "row_ids": np.int64,
    "offsets": np.int64,
    "token_ids": np.int32,
    "nll": np.float32,
    "entropy": np.float32,
    "top1": np.int32,
    "row_values": np.float16,
}


def _filled(values: np.ndarray, number: int, value: float) -> np.ndarray:
    return values if len(values) == number else np.full(number, value, dtype=values.dtype)


def _nothing(name: str) -> Any:
    return field(default_factory=lambda: np.zeros((0, 0) if name == "row_values" else 0, dtype=DTYPES[name]))


@dataclass(frozen=True)
class TokenStatistics:
    """
    A model's view of the supervised tokens of `R` rows, `N` tokens in all.

    Args:
        row_ids (`np.ndarray` of shape `(R,)`, int64):
            Names of the rows: the first 8 bytes of the digest of their content.
        offsets (`np.ndarray` of shape `(R + 1,)`, int64):
            The tokens of row `r` are those from `offsets[r]` to `offsets[r + 1]`.
        token_ids (`np.ndarray` of shape `(N,)`, int32):
            The tokens.
        nll (`np.ndarray` of shape `(N,)`, float32):
            Negative log-likelihood of each, in nats; empty if no model has looked at the rows.
        entropy (`np.ndarray` of shape `(N,)`, float32, *optional*):
            Entropy of the distribution it was predicted by, in nats.
        top1 (`np.ndarray` of shape `(N,)`, int32, *optional*):
            Most likely token of that distribution. A look that needs only the likelihoods has neither.
        row_values (`np.ndarray` of shape `(R, K)`, float16, *optional*):
            What else a look has seen of each row; `K` may be 0.
    """

    row_ids: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    nll: np.ndarray
    entropy: np.ndarray = _nothing("entropy")
    top1: np.ndarray = _nothing("top1")
    row_values: np.ndarray = _nothing("row_values")

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def surprise(self) -> np.ndarray:
        """Nats beyond the model's own uncertainty: the negative log-likelihood less the entropy. Shape `(N,)`."""
        return self.nll - self.entropy

    @property
    def token_rows(self) -> np.ndarray:
        """Position of the row that each token belongs to. Shape `(N,)`."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def row_nll(self) -> np.ndarray:
        """Mean negative log-likelihood of each row's tokens; NaN for rows without any. Shape `(R,)`."""
        counts = np.diff(self.offsets)
        sums = np.bincount(self.token_rows, weights=self.nll, minlength=len(self))
        return np.divide(sums, counts, out=np.full(len(self), np.nan), where=counts > 0)

    def sharing(self, first: TokenStatistics) -> TokenStatistics:
        """
        The same look, sharing its rows and tokens in memory with the first look at them.

        Args:
            first ([`TokenStatistics`]):
                Another look at the same rows.

        Raises:
            `ValueError`: if the rows' tokens differ between the two looks.
        """
        if not (np.array_equal(self.offsets, first.offsets) and np.array_equal(self.token_ids, first.token_ids)):
            raise ValueError(
                "The supervised tokens of the rows differ between two looks at them, so what the model said cannot be "
                "compared. Let the data collator make the same labels of a row each time, and cut no response: raise "
                "`max_length`, since other pictures may take more tokens, or set `screening='off'`."
            )
        return replace(self, row_ids=first.row_ids, offsets=first.offsets, token_ids=first.token_ids)

    def take(self, rows: np.ndarray) -> TokenStatistics:
        """Some rows, in the order of their positions `(S,)`."""
        lengths = np.diff(self.offsets)[rows]
        ends = np.cumsum(lengths)
        places = np.repeat(self.offsets[rows] - ends + lengths, lengths) + np.arange(lengths.sum())
        of_tokens = {name: getattr(self, name) for name in ("token_ids", "nll", "entropy", "top1")}
        return TokenStatistics(
            row_ids=self.row_ids[rows],
            offsets=np.concatenate([[0], ends]),
            **{name: values[places] if len(values) else values for name, values in of_tokens.items()},
            row_values=self.row_values[rows] if len(self.row_values) else self.row_values,
        )

    def tokens_by_row(self) -> list[np.ndarray]:
        """The tokens of each row, int32."""
        return np.split(self.token_ids, self.offsets[1:-1]) if len(self) else []

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """The arrays as tensors, to be saved."""
        return {name: torch.from_numpy(getattr(self, name)) for name in DTYPES}

    @classmethod
    def concatenate(cls, parts: Sequence[TokenStatistics]) -> TokenStatistics:
        """The rows of several, without `row_values`; a part without a model's view gets NaN, and -1 in `top1`."""
        unknown = {"nll": np.nan, "entropy": np.nan, "top1": -1}
        of_tokens = {
            name: np.concatenate([_filled(getattr(part, name), len(part.token_ids), value) for part in parts])
            for name, value in unknown.items()
        }
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            row_ids=np.concatenate([part.row_ids for part in parts]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            token_ids=np.concatenate([part.token_ids for part in parts]),
            **of_tokens,
        )

    @classmethod
    def of_rows(cls, row_ids: np.ndarray) -> TokenStatistics:
        """Rows of which only the names are known, int64 of shape `(R,)`, without tokens."""
        return cls(row_ids, np.zeros(len(row_ids) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> TokenStatistics:
        """What [`TokenStatistics.to_tensors`] gave."""
        # Checkpoints of earlier versions have no `row_values`, and wider integers
        present = {name: dtype for name, dtype in DTYPES.items() if name in tensors}
        return cls(**{name: tensors[name].numpy().astype(dtype, copy=False) for name, dtype in present.items()})

    @classmethod
    def from_batches(cls, batches: Iterable[Mapping[str, Any]]) -> TokenStatistics:
        """
        Collect batches.

        Args:
            batches (`Iterable[Mapping[str, torch.Tensor]]`):
                With `row_id` of shape `(B,)`, and `labels` (-100 where a position is not supervised) of shape
                `(B, T)`; with or without `nll`, `entropy` and `top1`, and `row_values` of shape `(B, K)`.
        """
        parts: dict[str, list[np.ndarray]] = {name: [] for name in DTYPES}
        for batch in batches:
            mask = batch["labels"] != -100
            values = {name: batch[name][mask] for name in ("nll", "entropy", "top1") if name in batch}
            values |= {"row_ids": batch["row_id"], "offsets": mask.sum(1), "token_ids": batch["labels"][mask]}
            values["row_values"] = batch.get("row_values", torch.zeros(len(mask), 0))
            for name, value in values.items():
                parts[name].append(value.numpy().astype(DTYPES[name]))
        arrays = {name: np.concatenate(part) for name, part in parts.items() if part}
        empty = {name: np.zeros(0, dtype=DTYPES[name]) for name in ("row_ids", "offsets", "token_ids", "nll")}
        arrays = empty | arrays
        arrays["offsets"] = np.concatenate([[0], np.cumsum(arrays["offsets"])])
        return cls(**arrays)
