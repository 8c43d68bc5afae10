# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How good a ranking and its cut are, where it is known which rows are poisoned."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...extras import from_extra


def ranking_quality(suspicion: np.ndarray, is_flagged: np.ndarray, is_poisoned: np.ndarray) -> dict[str, Any]:
    """
    Score a ranking of rows and the flags on them.

    Args:
        suspicion (`np.ndarray` of shape `(N,)`):
            Higher is more suspicious.
        is_flagged (`np.ndarray` of shape `(N,)`):
            Rows past the cut.
        is_poisoned (`np.ndarray` of shape `(N,)`):
            The truth.

    Returns:
        `dict` of JSON values. Shares are between 0 and 1, and `None` where there is nothing to take a share of:

        - `num_rows`, `num_poisoned`, `num_flagged`
        - `auroc`, `average_precision`
        - `flag_recall` (share of the poisoned rows flagged), `flag_precision` (share of the flagged rows poisoned)
        - `clean_lost`: share of the clean rows flagged
        - `top_rows`: max(10 %, 2 x poison rate) of the rows, and `top_recall`: share of the poisoned rows among the
          `top_rows` most suspicious, equally suspicious ones taken in order
        - `roc`: `false_positive_rate` and `true_positive_rate`, from (0, 0) to (1, 1)
        - `precision_recall`: `recall` and `precision`, from recall 1 to 0

    Raises:
        `ValueError`: if there are no rows.
    """
    with from_extra("report"):
        from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    if not len(is_poisoned):
        raise ValueError("There are no rows to evaluate.")
    num_poisoned, num_flagged = int(is_poisoned.sum()), int(is_flagged.sum())
    num_clean = len(is_poisoned) - num_poisoned
    top_rows = min(len(is_poisoned), max(1, round(len(is_poisoned) / 10), 2 * num_poisoned))
    top = np.argsort(-suspicion, kind="stable")[:top_rows]
    found = int((is_flagged & is_poisoned).sum())
    quality: dict[str, Any] = {
        "num_rows": len(is_poisoned),
        "num_poisoned": num_poisoned,
        "num_flagged": num_flagged,
        "auroc": None,
        "average_precision": None,
        "flag_recall": _share(found, num_poisoned),
        "flag_precision": _share(found, num_flagged),
        "clean_lost": _share(num_flagged - found, num_clean),
        "top_rows": top_rows,
        "top_recall": _share(int(is_poisoned[top].sum()), num_poisoned),
        "roc": None,
        "precision_recall": None,
    }
    if num_poisoned:
        quality["average_precision"] = float(average_precision_score(is_poisoned, suspicion))
        precision, recall, _ = precision_recall_curve(is_poisoned, suspicion, drop_intermediate=True)
        quality["precision_recall"] = {"recall": recall.tolist(), "precision": precision.tolist()}
    if num_poisoned and num_clean:
        quality["auroc"] = float(roc_auc_score(is_poisoned, suspicion))
        false_positive, true_positive, _ = roc_curve(is_poisoned, suspicion)
        quality["roc"] = {
            "false_positive_rate": false_positive.tolist(),
            "true_positive_rate": true_positive.tolist(),
        }
    return quality


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
