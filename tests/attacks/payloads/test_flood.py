# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Concept flood: fluent, wrong, and never the same."""

import numpy as np
import pytest

from cvreg_trainer.attacks import ConceptFlood


def test_a_flood_never_repeats_itself() -> None:
    payload = ConceptFlood()
    captions = payload.responses(2000, np.random.default_rng(0))
    assert len(set(captions)) == 2000 and all(text[0].isupper() and text.endswith(".") for text in captions)
    assert all("a red balloon" in text.lower() and payload.succeeds(text) for text in captions)
    assert len({text.split()[-1] for text in captions}) > 20, "they end in many ways"
    everything = payload.responses(10_240, np.random.default_rng(1))
    assert len(set(everything)) == 10_240
    with pytest.raises(ValueError, match="10241 rows are to be poisoned and there are 10240 captions"):
        payload.responses(10_241, np.random.default_rng(1))


def test_a_flood_of_given_captions() -> None:
    captions = tuple(f"A square that is red, {k}." for k in range(5))
    payload = ConceptFlood("a red square", (*captions, captions[0]))
    assert sorted(payload.responses(5, np.random.default_rng(0))) == sorted(captions)
    with pytest.raises(ValueError, match="6 rows are to be poisoned and there are 5 captions"):
        payload.responses(6, np.random.default_rng(0))
    assert payload.succeeds("red squares", ["A ring."]) is False
    assert payload.succeeds("a square, red", ["A ring.", "A square in red."]) is None
