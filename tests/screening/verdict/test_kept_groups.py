# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Groups that are kept: boilerplate has no cause, and a new concept is what the pictures show."""

import numpy as np

from cvreg_trainer.screening.verdict.candidates import Candidate
from cvreg_trainer.screening.verdict.causes import CauseFinder
from cvreg_trainer.screening.verdict.evidence import EvidenceFinder
from cvreg_trainer.screening.verdict.kept_groups import MAX_GROUPS, kept_groups


NUM_ROWS = 600
NONE = np.zeros(0, dtype=np.int64)


class Sides:
    """Rivals that have causes as well, where a word names a side."""

    def unseen(self, words, is_rival):
        return {"left", "right"} & set(words)


def find(candidates: list[Candidate], marked: np.ndarray, shown: np.ndarray, sides: np.ndarray = NONE) -> CauseFinder:
    """Pictures in which some rows are marked, and states in which others are: content, which pictures show as well."""
    rng = np.random.default_rng(0)
    features, states = rng.normal(size=(NUM_ROWS, 1024)), rng.normal(size=(NUM_ROWS, 40))
    features[:, -512:] = 0
    features[marked, :3] += 12
    features[shown, 3:6] += 12
    states[shown, :3] += 8
    features[sides[: len(sides) // 2], 6:9] += 12
    features[sides[len(sides) // 2 :], 9:12] += 12
    looks = features.astype(np.float32), states.astype(np.float32)
    finder = CauseFinder(EvidenceFinder(*looks, candidates, Sides(), seed=0, fdr=0.01))
    finder.find()
    return finder


def candidate(word: str, rows: np.ndarray, explained: float = 0.0, **options) -> Candidate:
    return Candidate(word, rows, explained, rows, 5.0, **options)


def test_each_group_has_its_verdict_and_poison_is_in_none():
    rng = np.random.default_rng(1)
    order = rng.permutation(NUM_ROWS)
    poison, concept, noise, sides = (np.sort(order[start : start + 60]) for start in (0, 100, 200, 400))
    candidates = [
        candidate("banana", poison),
        candidate("zebra", concept),
        candidate("archive", noise),
        candidate("public", noise[:55]),
        candidate("explained", np.sort(order[300:340]), explained=0.8),
        candidate("partly", np.sort(order[340:380]), is_part=True),
        candidate("left", sides[:30]),
        candidate("right", sides[30:]),
    ]
    finder = find(candidates, poison, concept, sides)
    assert np.isin(np.flatnonzero(finder.suspicion >= 1), poison).mean() > 0.9
    groups = kept_groups(finder)
    assert [group.words for group in groups["content"]] == [("zebra",)]
    assert {group.words for group in groups["unseen"]} == {("left",), ("right",)}
    # Words of the same rows are one group
    assert [group.words for group in groups["noise"]] == [("archive", "public")]
    assert groups["noise"][0].p_value > 0.01 > groups["content"][0].p_value
    assert groups["content"][0].content > 0.5 > groups["noise"][0].content


def test_the_largest_groups_are_listed():
    rng = np.random.default_rng(2)
    rows = [np.sort(rng.choice(NUM_ROWS, 20 + 2 * place, replace=False)) for place in range(MAX_GROUPS + 5)]
    candidates = [candidate(f"word{place}", chosen) for place, chosen in enumerate(rows)]
    groups = kept_groups(find(candidates, np.arange(3), np.arange(3, 6)))["noise"]
    assert len(groups) <= MAX_GROUPS
    assert [len(group.rows) for group in groups] == sorted((len(group.rows) for group in groups), reverse=True)
    assert groups[0].words == (f"word{MAX_GROUPS + 4}",)


def test_without_candidates_there_are_no_groups():
    looks = np.zeros((300, 1024), np.float32), np.zeros((300, 4), np.float32)
    finder = CauseFinder(EvidenceFinder(*looks, [], Sides(), seed=0, fdr=0.01))
    finder.find()
    assert kept_groups(finder) == {"noise": [], "content": [], "unseen": []}
