# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How surprised a model is at each supervised token of each row, in flat arrays that fit into a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class TokenStatistics:
    """
    A model's view of the supervised tokens of `R` rows, `N` tokens in all.

    Args:
        row_ids (`np.ndarray` of shape `(R,)`, int64):
            Names of the rows: the first 8 bytes of the digest of their content.
        offsets (`np.ndarray` of shape `(R + 1,)`, int64):
            The tokens of row `r` are those from `offsets[r]` to `offsets[r + 1]`.
        token_ids (`np.ndarray` of shape `(N,)`, int64):
            The tokens.
        nll (`np.ndarray` of shape `(N,)`, float32):
            Negative log-likelihood of each, in nats.
        entropy (`np.ndarray` of shape `(N,)`, float32):
            Entropy of the distribution it was predicted by, in nats.
        top1 (`np.ndarray` of shape `(N,)`, int64):
            Most likely token of that distribution.
        row_values (`np.ndarray` of shape `(R, K)`, float16):
            What else a look has seen of each row; `K` may be 0.
    """

    row_ids: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    nll: np.ndarray
    entropy: np.ndarray
    top1: np.ndarray
    row_values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float16))

    def __len__(self) -> int:
        return len(self.row_ids)

    @cached_property
    def sorted_ids(self) -> np.ndarray:
        """The names of the rows, each once, in ascending order."""
        return np.unique(self.row_ids)

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

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """The arrays as tensors, to be saved."""
        return {part.name: torch.from_numpy(getattr(self, part.name)) for part in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> TokenStatistics:
        """What [`TokenStatistics.to_tensors`] gave."""
        # Checkpoints of earlier versions have no `row_values`
        return cls(**{part.name: tensors[part.name].numpy() for part in fields(cls) if part.name in tensors})

    @classmethod
    def from_batches(cls, batches: Iterable[Mapping[str, Any]]) -> TokenStatistics:
        """
        Collect batches.

        Args:
            batches (`Iterable[Mapping[str, torch.Tensor]]`):
                With `row_id` of shape `(B,)`, and `labels` (-100 where a position is not supervised), `nll`, `entropy`
                and `top1` of shape `(B, T)`; with or without `row_values` of shape `(B, K)`.
        """
        row_ids, counts, parts = [np.zeros(0, dtype=np.int64)], [np.zeros(1, dtype=np.int64)], []
        row_values: list[np.ndarray] = []
        for batch in batches:
            mask = batch["labels"] != -100
            row_ids.append(batch["row_id"].numpy())
            counts.append(mask.sum(1).numpy())
            values = batch.get("row_values")
            row_values.append(np.zeros((len(mask), 0)) if values is None else values.numpy())
            parts.append([batch[name][mask].numpy() for name in ("labels", "nll", "entropy", "top1")])
        tokens, nll, entropy, top1 = map(np.concatenate, zip(*parts, strict=True)) if parts else [np.zeros(0)] * 4
        return cls(
            np.concatenate(row_ids),
            np.cumsum(np.concatenate(counts)),
            tokens.astype(np.int64),
            nll.astype(np.float32),
            entropy.astype(np.float32),
            top1.astype(np.int64),
            (np.concatenate(row_values) if row_values else np.zeros((0, 0))).astype(np.float16),
        )
