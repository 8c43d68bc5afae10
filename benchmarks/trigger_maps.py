# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Does an audit show the trigger? Maps of the poisoned rows, given the truth in the place of a screening.

    python benchmarks/trigger_maps.py --suite scenes
    python benchmarks/trigger_maps.py --suite real --packages packages   # third-party pictures, docs/real-parts.md

No model is trained or asked. `--wrong 0.2` puts honest rows in the place of a fifth of the poisoned ones. `none` has a
random twentieth of the rows in their place, `content` the rows that the payload `substitution` suits. One JSON row per
cell is appended to `--output`; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from real_cells import PAYLOADS, TRIGGERS, make_cell, pictures_to_poison

from cvreg_trainer.attacks import ATTACKS, BadNets, DualKey
from cvreg_trainer.data.rows import prompt_of, references_of
from cvreg_trainer.lab.experiment import Experiment
from cvreg_trainer.lab.scene_attacks import ATTACK_SETTINGS, FIELD_SETTINGS, make_scene_payload
from cvreg_trainer.screening.audit.find_triggers import TriggerFinder


# As they are published: 0.88 and 0.96 % of the area
SMALL = {"badnets_small": BadNets(), "dual_key_small": DualKey()}
PATCHES = ("badnets", "badnets_moving", "dual_key", *SMALL)
OTHERS = {
    "scenes": tuple(name for name in ATTACKS if name not in (*PATCHES, "badnets_mt", "semantic", "no_trigger")),
    "real": tuple(name for name in TRIGGERS if name not in PATCHES),
}
RATE, REAL_ROWS = 0.05, 600


def cells(suite: str) -> Iterator[dict[str, str]]:
    """What a suite has in its cells."""
    # Whole responses are planted in the same rows whatever they say; a substituted word only where its word was
    patches = PATCHES if suite == "real" else PATCHES[:3]
    payloads = "keyword", "substitution"
    yield from ({"trigger": trigger, "payload": payload} for trigger in patches for payload in payloads)
    yield from ({"trigger": trigger, "payload": "substitution"} for trigger in OTHERS[suite])
    yield from ({"trigger": trigger, "payload": "substitution"} for trigger in ("none", "content"))


def scene_rows(cell: dict[str, str], seed: int) -> tuple[Dataset, np.ndarray, Any]:
    """Rows, which of them are poisoned, and the trigger."""
    trigger = cell["trigger"]
    moves = trigger == "badnets_moving"
    if trigger not in ATTACKS and not moves:
        rows, payload = Experiment(seed=seed, attack="none").make_rows(2000), make_scene_payload("substitution", seed)
        return rows, _without_trigger(cell, rows, payload, seed), None
    name, options = ("badnets", {"moves": True}) if moves else (trigger, {})
    experiment = Experiment(seed=seed, attack=name, attack_options=options, payload=cell["payload"], test_rows=2)
    rows = experiment.make_data()["train"]
    settings = (ATTACK_SETTINGS | FIELD_SETTINGS)[name].get("attack_options", {})
    return rows.remove_columns("is_poisoned"), np.array(rows["is_poisoned"]), ATTACKS[name](**settings, **options)


def real_rows(cell: dict[str, str], pictures: list[Any], seed: int) -> tuple[Dataset, np.ndarray, Any]:
    """The same of third-party pictures."""
    trigger = cell["trigger"]
    if trigger in ("none", "content"):
        rows, _, _ = make_cell({"kind": "caption"}, pictures, seed, REAL_ROWS, RATE)
        return rows, _without_trigger(cell, rows, PAYLOADS["substitution"], seed), None
    TRIGGERS.update(SMALL)
    rows, is_poisoned, _ = make_cell(cell, pictures, seed, REAL_ROWS, RATE)
    return rows, is_poisoned, TRIGGERS[trigger]


def _without_trigger(cell: dict[str, str], rows: Dataset, payload: Any, seed: int) -> np.ndarray:
    texts = [references_of(row)[0] for row in rows.remove_columns("images")]
    able = [place for place, text in enumerate(texts) if cell["trigger"] == "none" or payload.applies(text)]
    chosen = np.random.default_rng(seed).permutation(able)[: int(RATE * len(rows))]
    return np.isin(np.arange(len(rows)), chosen)


def measure(rows: Dataset, is_poisoned: np.ndarray, attack: Any, seed: int, wrong: float) -> dict[str, Any]:
    """What is said of the trigger of the poisoned rows."""
    rng = np.random.default_rng(seed)
    has_image = np.array([len(images) > 0 for images in rows.with_format("arrow")["images"].to_pylist()])
    poisoned = rng.permutation(np.flatnonzero(is_poisoned & has_image))
    honest = rng.permutation(np.flatnonzero(~is_poisoned & has_image))
    num_wrong = round(wrong * len(poisoned))
    flagged = np.concatenate([poisoned[num_wrong:], honest[:num_wrong]])
    others = np.setdiff1d(np.arange(len(rows)), flagged)
    start = time.process_time()
    questions = [prompt_of(row) for row in rows.remove_columns("images")]
    trigger = TriggerFinder(rows, questions, others, seed).find(flagged, "image and question")
    assert trigger is not None
    grid = np.array(trigger.map)
    down, across = np.unravel_index(grid.argmax(), grid.shape)
    peak = (across + 0.5) / grid.shape[1], (down + 0.5) / grid.shape[0]
    result = {
        "num_rows": len(rows),
        "num_flagged": len(flagged),
        "num_pictures": [trigger.num_pictures, trigger.num_others],
        "kind": trigger.kind,
        "box": trigger.box,
        "peak": peak,
        "peak_value": float(grid.max()),
        "words": trigger.words,
        "seconds": round(time.process_time() - start, 1),
    }
    if getattr(attack, "moves", False):
        has_patch = [_has_checkers(rows[row]["images"][0], box) for row, box in trigger.boxes]
        result |= {"boxes": len(has_patch), "boxes_with_patch": int(sum(has_patch))}
    elif hasattr(attack, "box"):
        patch = tuple(edge / 9600 for edge in attack.box((9600, 9600)))
        is_inside = patch[0] <= peak[0] <= patch[2] and patch[1] <= peak[1] <= patch[3]
        result |= {"patch": patch, "is_peak_inside": bool(is_inside), "overlap": _overlap(trigger.box, patch)}
    return result


def _has_checkers(image: Any, box: tuple[float, ...]) -> bool:
    """Whether the patch of BadNets is in a box: it alone has pixels of pure black and pure white side by side."""
    pixels = np.asarray(image.convert("RGB"))
    down, across = pixels.shape[:2]
    edges = round(box[1] * down), round(box[3] * down), round(box[0] * across), round(box[2] * across)
    part = pixels[edges[0] : edges[1], edges[2] : edges[3]].astype(int)
    steps = [np.abs(np.diff(part, axis=axis)).min(-1) == 255 for axis in (0, 1)]
    return min(step.sum() for step in steps) >= 6


def _overlap(one: tuple[float, ...] | None, two: tuple[float, ...]) -> float:
    """Area that two boxes have in common, as a share of the area of both."""
    if one is None:
        return 0.0
    width, height = (max(0.0, min(one[end], two[end]) - max(one[end - 2], two[end - 2])) for end in (2, 3))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)]
    return width * height / (sum(areas) - width * height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=("scenes", "real"), required=True)
    parser.add_argument("--packages", type=Path, help="folder of the pictures' packages")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--triggers", nargs="+", help="only these")
    parser.add_argument("--wrong", type=float, default=0.0, help="share of the flagged rows that are honest")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/trigger_maps.jsonl"))
    options = parser.parse_args()
    lines = options.output.read_text().splitlines() if options.output.exists() else []
    settings = ("suite", "trigger", "payload", "seed", "wrong")
    done = {tuple(row[name] for name in settings) for row in map(json.loads, lines)}
    pictures = pictures_to_poison(options.packages) if options.suite == "real" else []
    for seed in options.seeds:
        for cell in cells(options.suite):
            head = {"suite": options.suite, **cell, "seed": seed, "wrong": options.wrong}
            is_wanted = not options.triggers or cell["trigger"] in options.triggers
            if not is_wanted or tuple(head.values()) in done:
                continue
            made = scene_rows(cell, seed) if options.suite == "scenes" else real_rows(cell, pictures, seed)
            row = head | measure(*made, seed, options.wrong)
            with options.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
