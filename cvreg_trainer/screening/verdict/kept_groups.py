# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Groups of rows with an unexplained word that are kept all the same, and why: what a person would ask about next.
"""

from __future__ import annotations

import numpy as np

from .candidates import WHOLE_RESPONSES
from .causes import Cause, CauseFinder
from .rule import RULE


MAX_GROUPS = 10  # of each verdict
_MAX_WORDS = 500  # words of each verdict to group, the largest ones
_SAME_ROWS = 0.8  # share of the larger set of rows that words of one group have in common


def kept_groups(finder: CauseFinder) -> dict[str, list[Cause]]:
    """
    The largest groups that a search for causes keeps.

    Args:
        finder ([`CauseFinder`]):
            After its search.

    Returns:
        `dict[str, list[Cause]]`: at most ten groups each under `"noise"`, which nothing predicts, `"content"`,
        which content predicts about as well as low-level features do, and `"unseen"`, whose rivals also
        have causes. Words that are mostly in flagged rows, or that images usually explain, belong to none of these.
    """
    groups: dict[str, list[Cause]] = {"noise": [], "content": [], "unseen": []}
    evidence = finder.first_evidence
    if evidence is None:
        return groups
    is_flagged = finder.suspicion >= 1
    kinds = {
        "noise": ~evidence.is_caused,
        "content": evidence.is_caused & evidence.is_content & ~evidence.is_suspect,
        "unseen": evidence.is_unseen,
    }
    names = list(finder.probes)
    sizes = np.array([len(candidate.rows) for candidate in finder.candidates])
    for kind, is_kind in kinds.items():
        places = np.flatnonzero(is_kind & (sizes >= RULE.enough_for_content))
        for place in places[np.argsort(-sizes[places], kind="stable")][:_MAX_WORDS].tolist():
            candidate = finder.candidates[place]
            is_open = candidate.word != WHOLE_RESPONSES and not candidate.is_part
            if not is_open or candidate.explained >= RULE.explained or is_flagged[candidate.rows].mean() >= 0.5:
                continue
            cause = Cause(
                (candidate.word,),
                candidate.rows[~is_flagged[candidate.rows]],
                names[evidence.source[place]],
                float(evidence.strength[place]),
                float(evidence.content[place]),
                candidate.explained,
                float(evidence.p_values[place]),
            )
            _add(groups[kind], cause)
    return groups


def _add(groups: list[Cause], cause: Cause) -> None:
    """Add a group, or its word to a group that has nearly the same rows."""
    for place, group in enumerate(groups):
        common = len(np.intersect1d(group.rows, cause.rows, assume_unique=True))
        if common >= _SAME_ROWS * max(len(group.rows), len(cause.rows)):
            rest = group.source, group.strength, group.content, group.explained, group.p_value
            groups[place] = Cause(group.words + cause.words, group.rows, *rest)
            return
    if len(groups) < MAX_GROUPS:
        groups.append(cause)
