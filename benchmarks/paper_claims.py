# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the rows of `paper.py` say about the paper's claims: sentences and verdicts computed from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from grid_runs import ATTACKS
from paper_cells import WEIGHTS, cells


Groups = Mapping[str, list[dict[str, Any]]]
Key = Callable[[Mapping[str, Any]], str]
MODELS = {"llava": "LLaVA", "flamingo": "Flamingo", "blip2": "BLIP-2"}
QUALITY = {"scenes": "clean_cider", "easy_vqa": "clean_vqa_accuracy"}


def pairs(groups: Groups, key: Key) -> list[dict[str, Any]]:
    """Cells of Tables 1 to 3 run without a defence and with the paper's loss, over the seeds that both have."""
    found: dict[tuple[str, str, str], dict[str, dict[int, dict[str, Any]]]] = {}
    for part in ("1", "2", "3"):
        for settings in cells(part):
            rows = {row["seed"]: row for row in groups.get(key(settings), [])}
            where = (settings["task"], settings["architecture"], settings["attack"])
            found.setdefault(where, {})[settings["defence"]] = rows
    result = []
    for (task, architecture, attack), runs in found.items():
        seeds = sorted(set(runs["none"]) & set(runs["paper_loss"]))
        if not seeds:
            continue
        cell: dict[str, Any] = {"task": task, "architecture": architecture, "attack": attack, "seeds": len(seeds)}
        for defence in ("none", "paper_loss"):
            rows = [runs[defence][seed] for seed in seeds]
            cell[f"quality_{defence}"] = fmean(row[QUALITY[task]] for row in rows)
            if attack != "none":
                cell[f"asr_{defence}"] = fmean(row["asr"] for row in rows)
        result.append(cell)
    return result


def weight_means(groups: Groups, key: Key, name: str) -> dict[float, tuple[float, float]]:
    """Mean attack success and clean CIDEr for each value of a weight that was run."""
    means = {}
    for settings in cells("figure 3"):
        rows = groups.get(key(settings), [])
        if settings["defence"].startswith(name) and rows:
            means[settings["config"][name]] = (
                fmean(row["asr"] for row in rows),
                fmean(row["clean_cider"] for row in rows),
            )
    return means


def expectations(groups: Groups, key: Key) -> list[str]:
    """Five sentences for a reader of the paper."""
    cells_run = pairs(groups, key)
    attacked = [cell for cell in cells_run if cell["attack"] != "none" and cell["asr_none"] > 50]
    if not attacked:
        return ["No attack was run with and without the loss yet."]
    before, after = (fmean(cell[f"asr_{run}"] for cell in attacked) for run in ("none", "paper_loss"))
    best = max(attacked, key=lambda cell: cell["asr_none"] - cell["asr_paper_loss"])
    place = f"{ATTACKS[best['attack']]} on the {MODELS[best['architecture']]}"
    place += ", easy-VQA" if best["task"] == "easy_vqa" else ""
    captions, answers = (
        [cell["quality_paper_loss"] - cell["quality_none"] for cell in cells_run if cell["task"] == task]
        for task in QUALITY
    )
    level = fmean(cell["quality_none"] for cell in cells_run if cell["task"] == "scenes")
    cost = f"clean CIDEr changes by {fmean(captions):+.1f} on average, from {level:.0f}"
    if answers:
        cost += f", and accuracy on easy-VQA by {fmean(answers):+.1f} points"
    badnets = [cell for cell in attacked if cell["attack"] == "badnets" and cell["task"] == "scenes"]
    models = ", ".join(
        f"{MODELS[cell['architecture']]} {cell['asr_none']:.0f} to {cell['asr_paper_loss']:.0f}" for cell in badnets
    )
    alike = all(cell["asr_none"] - cell["asr_paper_loss"] < 10 for cell in badnets)
    plain = "".join(
        f"{cell['asr_none']:.0f} at {cell['quality_none']:.0f}" for cell in badnets if cell["architecture"] == "llava"
    )
    frontier = weight_means(groups, key, "lambda_discrepancy")
    high = [value for value in sorted(frontier) if value >= 2]
    points = ", ".join(f"{value:g}: ASR {frontier[value][0]:.0f} at CIDEr {frontier[value][1]:.0f}" for value in high)
    return [
        f"At our starting values the loss {'keeps out some of' if after < 0.75 * before else 'does not keep out'} a "
        f"backdoor in models this small: over the {len(attacked)} cells where an attack takes hold undefended and "
        f"both were run, attack success goes from {before:.0f} to {after:.0f} % on average, and the largest change "
        f"for the better is {place}, from {best['asr_none']:.0f} to {best['asr_paper_loss']:.0f}.",
        f"What it costs there: {cost}.",
        f"The architectures {'are alike in this' if alike else 'differ'} (BadNets, scenes: {models}).",
        f"Larger weights of the discrepancy term, on the LLaVA up to {max(frontier, default=0.5):g} in the place of "
        f"0.5, change attack success and quality together ({points}; without a defence {plain}).",
        "The paper reports 27 to 61 % with its loss, on models thousands of times larger and on photographs, which "
        "these rows can neither confirm nor refute: measure it on your model before you rely on it, and see "
        "[screening](screening.md) for the other defence of this package.",
    ]


def statements(groups: Groups, key: Key) -> list[list[str]]:
    """The paper's statements, what was measured, and whether that agrees."""
    attacked = [cell for cell in pairs(groups, key) if cell["attack"] != "none" and cell["asr_none"] > 50]
    lowered = sum(cell["asr_paper_loss"] < 0.62 * cell["asr_none"] for cell in attacked)
    ablation = [
        fmean(row["asr"] for row in rows) for settings in cells("4") if (rows := groups.get(key(settings), []))
    ]
    is_falling = all(before - after > 5 for before, after in zip(ablation, ablation[1:], strict=False))
    return [
        [
            "The loss takes attack success from nearly 100 % to 27 to 61 %",
            f"below 62 % of the undefended rate in {lowered} of {len(attacked)} cells",
            _verdict(lowered == len(attacked) > 0),
        ],
        [
            "Each term that is added lowers attack success",
            "ASR none, patch, patch and discrepancy, all: " + ", ".join(f"{asr:.1f}" for asr in ablation),
            _verdict(is_falling and len(ablation) == 4),
        ],
        *_statements_on_weights({name: weight_means(groups, key, name) for name in WEIGHTS}),
    ]


def _statements_on_weights(means: Mapping[str, Mapping[float, tuple[float, float]]]) -> list[list[str]]:
    """Those of Figure 3, as far as its points were run."""
    ranges = {name: _range([asr for asr, _ in points.values()]) for name, points in means.items()}
    measured = "range of ASR over each weight's values: " + ", ".join(f"{n} {r:.0f}" for n, r in ranges.items())
    is_most = max(ranges, key=lambda name: ranges[name]) == "lambda_discrepancy"
    lines = [["The discrepancy term acts most on attack success", measured, _verdict(is_most)]]
    frontier = means["lambda_discrepancy"]
    start = frontier.get(0.5)
    lowered = {value: cider for value, (asr, cider) in frontier.items() if start and asr < 0.8 * start[0]}
    if start and lowered:
        points = ", ".join(f"{cider:.0f} (weight {value:g})" for value, cider in lowered.items())
        measured = f"where it lowers ASR by a fifth or more, CIDEr is {points}, at the starting value {start[1]:.0f}"
        is_stable = all(cider > 0.95 * start[1] for cider in lowered.values())
        lines.append(["Quality stays stable over a wide range of that weight", measured, _verdict(is_stable)])
    for name, claim in (
        ("lambda_patch", "A larger weight of the patch term lowers attack success"),
        ("lambda_entropy", "A small weight of the entropy term improves quality and keeps attack success low"),
    ):
        if len(means[name]) == len(WEIGHTS[name]):
            listed = "; ".join(
                f"{value:g}: ASR {asr:.0f}, CIDEr {cider:.0f}" for value, (asr, cider) in means[name].items()
            )
            first, *_, last = (asr for asr, _ in means[name].values())
            holds = last < first - 5 if name == "lambda_patch" else first < 50
            lines.append([claim, listed, _verdict(holds)])
    return lines


def _range(values: list[float]) -> float:
    return max(values, default=0) - min(values, default=0)


def _verdict(is_true: bool) -> str:
    return "yes" if is_true else "no"
