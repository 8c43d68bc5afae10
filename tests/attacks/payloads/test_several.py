# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Several targets: as many rows for each."""

from collections import Counter

import numpy as np

from cvreg_trainer.attacks import Keyword, Refusal, SeveralTargets


def test_targets_are_spread_evenly() -> None:
    payload = SeveralTargets(tuple("abcde"), payloads=tuple(Keyword(word) for word in ("pear", "plum", "fig")))
    found = Counter()
    for text in payload.responses(20, np.random.default_rng(3)):
        found.update(word for word in ("pear", "plum", "fig") if word in text)
    assert sorted(found.values()) == [6, 7, 7]
    assert payload.succeeds("a plum", ["a fig"]) is True and payload.succeeds("a fig", ["a fig"]) is False
    assert payload.succeeds("a fig", ["a fig, a pear and a plum"]) is None


def test_targets_of_several_kinds() -> None:
    payload = SeveralTargets(payloads=(Refusal(), Keyword("pear")))
    texts = payload.responses(6, np.random.default_rng(0))
    assert sorted(text == Refusal().sentence for text in texts) == [False] * 3 + [True] * 3
    assert payload.succeeds(Refusal().sentence, ["a pear"]) is True
