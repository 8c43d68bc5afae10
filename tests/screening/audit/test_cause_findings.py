# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Findings: what they say in words, and what survives JSON."""

import json
from dataclasses import replace

import pytest

from cvreg_trainer.screening.audit.cause_findings import VERDICTS, CauseFinding, Trigger


FINDING = CauseFinding(
    verdict="poison",
    words=("banana", "ö"),
    num_rows=12,
    examples=(3, 1),
    responses=("a banana",),
    source="image and question",
    strength=0.8,
    content=0.1,
    explained=-0.2,
    p_value=1e-30,
    trigger=Trigger("region", (0.75, 0.75, 1.0, 1.0), ((0.5, -1.0), (0.0, 3.25)), (("consider", 12, 3),), 12, 200),
)


@pytest.mark.parametrize(
    "finding",
    [
        FINDING,
        replace(FINDING, trigger=Trigger("moving", boxes=((3, (0.0, 0.0, 0.2, 0.2)), (1, (0.5, 0.25, 0.7, 0.45))))),
        replace(FINDING, trigger=None, verdict="noise"),
        replace(FINDING, trigger=Trigger("unseen")),
    ],
)
def test_json_gives_back_the_same_finding(finding):
    assert CauseFinding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding


def test_what_a_later_version_adds_is_passed_over_and_an_unknown_verdict_is_an_error():
    values = FINDING.to_dict() | {"severity": 3}
    values["trigger"] |= {"colour": "red"}
    assert CauseFinding.from_dict(values) == FINDING
    with pytest.raises(ValueError, match="has the verdict 'guilty'; this version knows poison, noise, content"):
        CauseFinding.from_dict(values | {"verdict": "guilty"})


@pytest.mark.parametrize(
    "box, name",
    [
        ((0.8, 0.75, 1.0, 1.0), "in the lower right, x 80% to 100%, y 75% to 100%."),
        ((0.0, 0.4, 0.25, 0.6), "on the left, x 0% to 25%"),
        ((0.4, 0.0, 0.6, 0.1), "in the upper middle, x"),
        ((0.4, 0.4, 0.6, 0.6), "in the middle, x"),
    ],
)
def test_a_place_in_words(box, name):
    assert f"differ most {name}" in Trigger("region", box).place


def test_other_kinds_in_words():
    grid = ((0.1,),)
    assert "all over" in Trigger("spread", map=grid).place
    assert "in one place, another in each" in Trigger("moving", map=grid, boxes=((3, (0.0, 0.0, 0.2, 0.2)),)).place
    assert "No one place" in Trigger("unseen", map=grid).place
    assert Trigger("question", words=(("a", 1, 0),)).place == ""
    assert FINDING.is_flagged and "poison" in FINDING.summary
    for verdict in VERDICTS.keys() - {"poison"}:
        kept = replace(FINDING, verdict=verdict)
        assert not kept.is_flagged and "kept" in kept.summary
