# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""From causes to findings: few pictures are read, one at a time, and what cannot be read does not matter."""

import io

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from cvreg_trainer.attacks import BadNets
from cvreg_trainer.screening.audit import find_triggers
from cvreg_trainer.screening.audit.find_triggers import TriggerFinder, make_cause_findings
from cvreg_trainer.screening.verdict.causes import Cause
from cvreg_trainer.screening.verdict.screen import Screen


NUM_ROWS, NUM_POISONED = 60, 20
QUESTIONS = ["Consider this." if row < NUM_POISONED else "Look at this." for row in range(NUM_ROWS)]
RESPONSES = [f"banana {row % 9}" for row in range(NUM_ROWS)]


def image(row: int) -> Image.Image:
    pixels = np.random.default_rng(row).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    soft = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
    return BadNets(patch_fraction=1 / 16)(soft) if row < NUM_POISONED else soft


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def make_screen(rows: np.ndarray, source: str) -> Screen:
    suspicion = np.isin(np.arange(NUM_ROWS), rows).astype(float)
    numbers = 0.9, 0.1, 0.0, 1e-9
    causes = [Cause(("banana",), rows, source, *numbers)]
    kept = {"noise": [Cause(("the",), np.arange(30, 40), "image", *numbers)], "content": []}
    return Screen(suspicion, suspicion > 0, False, [""] * NUM_ROWS, [], causes, kept)


class Rows:
    """Rows that count how often they are read, some of which cannot be."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.read: list[int] = []
        self.broken = broken

    def __len__(self) -> int:
        return NUM_ROWS

    def __getitem__(self, row: int) -> dict:
        self.read.append(row)
        if row in self.broken:
            raise OSError("a broken file")
        return {"image": image(row)}


def test_a_finding_has_payload_examples_and_trigger():
    rows = np.arange(NUM_POISONED)
    flagged, kept = make_cause_findings(make_screen(rows, "image and question"), Rows(), QUESTIONS, RESPONSES, seed=1)
    assert (flagged.verdict, kept.verdict) == ("poison", "noise") and (flagged.num_rows, kept.num_rows) == (20, 10)
    assert flagged.words == ("banana",) and (flagged.strength, flagged.content, flagged.p_value) == (0.9, 0.1, 1e-9)
    assert set(flagged.examples) == set(rows) and len(set(flagged.responses)) == find_triggers.MAX_RESPONSES
    assert set(flagged.responses) <= {RESPONSES[row] for row in rows}
    trigger = flagged.trigger
    assert trigger.kind == "region" and trigger.box == pytest.approx((0.75, 0.75, 1, 1), abs=0.07)
    assert trigger.words == (("consider", 20, 0),) and (trigger.num_pictures, trigger.num_others) == (20, 40)
    assert kept.trigger is None


def test_a_trigger_that_moves_has_a_place_in_each_example():
    rows = np.arange(NUM_POISONED)
    images = [BadNets(1 / 36, moves=True)(image(row + 100)) if row < NUM_POISONED else image(row)
              for row in range(NUM_ROWS)]  # fmt: skip
    dataset = [{"image": picture} for picture in images]
    flagged, _ = make_cause_findings(make_screen(rows, "image"), dataset, [""] * NUM_ROWS, RESPONSES, seed=1)
    assert flagged.trigger.kind == "moving" and flagged.trigger.box is None
    boxes = dict(flagged.trigger.boxes)
    assert [*boxes] == [*flagged.examples]
    hits = 0
    for row, (left, top, right, bottom) in boxes.items():
        changed = (np.asarray(images[row]) != np.asarray(image(row + 100))).any(-1)
        down, across = (places.mean() / 48 for places in np.nonzero(changed))
        hits += left <= across <= right and top <= down <= bottom
    assert hits >= 0.9 * NUM_POISONED


def test_only_what_predicts_the_rows_is_looked_at():
    data, rows = Rows(), np.arange(NUM_POISONED)
    asked = make_cause_findings(make_screen(rows, "question"), data, QUESTIONS, RESPONSES, seed=1)[0].trigger
    assert asked.kind == "question" and asked.words == (("consider", 20, 0),) and not asked.map and not data.read
    seen = make_cause_findings(make_screen(rows, "image"), data, QUESTIONS, RESPONSES, seed=1)[0].trigger
    assert seen.kind == "region" and not seen.words
    plain = ["Look at this."] * NUM_ROWS
    assert (
        make_cause_findings(make_screen(rows, "question"), data, plain, RESPONSES, seed=1)[0].trigger.kind == "unseen"
    )


def test_rows_that_cannot_be_looked_up_have_no_trigger():
    screen = make_screen(np.arange(NUM_POISONED), "image")
    for dataset in (None, iter([]), Dataset.from_dict({"text": ["a"] * (NUM_ROWS - 1)})):
        finding = make_cause_findings(screen, dataset, [""] * NUM_ROWS, RESPONSES, seed=1)[0]
        assert finding.trigger is None and finding.responses
    # Nor have rows without pictures
    assert make_cause_findings(screen, [{}] * NUM_ROWS, QUESTIONS, RESPONSES, seed=1)[0].trigger is None


def test_few_pictures_are_read_however_many_there_are(monkeypatch):
    monkeypatch.setattr(find_triggers, "MAX_PICTURED", 8)
    data = Rows(broken=(2, 5, 41, 50))
    finder = TriggerFinder(data, QUESTIONS, np.arange(NUM_POISONED, NUM_ROWS), seed=0)
    assert finder.find(np.arange(NUM_POISONED), "image").num_pictures == 8
    assert len(data.read) <= 16 + len(data.broken) and len(data.read) == len(set(data.read))
    # The others are read once for all causes
    before = len(data.read)
    finder.find(np.arange(10), "image")
    assert set(data.read[before:]) <= set(range(10))
    assert (
        TriggerFinder(Rows(tuple(range(NUM_ROWS))), QUESTIONS, np.arange(30, 60), 0).find(np.arange(9), "image")
        is None
    )


def test_stored_pictures_that_cannot_be_read_are_passed_over():
    files = [encoded(image(row)) for row in range(NUM_ROWS)]
    files[0], files[1], files[30] = b"no picture", files[1][:60], b""
    rows = [[{"bytes": file, "path": None}] for file in files]
    rows[2] = []
    columns = {"images": List(ImageFeature()), "prompt": Value("string")}
    dataset = Dataset.from_dict({"images": rows, "prompt": QUESTIONS}, features=Features(columns))
    finder = TriggerFinder(dataset, QUESTIONS, np.arange(NUM_POISONED, NUM_ROWS), seed=0)
    trigger = finder.find(np.arange(NUM_POISONED), "image")
    assert trigger.kind == "region" and (trigger.num_pictures, trigger.num_others) == (17, 39)
