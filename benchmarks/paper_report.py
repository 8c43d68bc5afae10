# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Writes `docs/paper.md` and its figure from the rows of `paper.py`, which calls it: every table, every cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from grid_runs import ATTACKS, PAPER_LOSS, table
from matplotlib.figure import Figure
from paper_cells import WEIGHTS, cell_of, cells, identity
from paper_claims import expectations, statements, weight_means
from paper_numbers import ABLATION, BASELINES, RESULTS


DOCS = Path("docs")
ARCHITECTURES = {"llava": "LLaVA", "flamingo": "Flamingo", "blip2": "BLIP-2"}
DEFENCES = {
    "none": "none",
    "paper_loss": "the paper's loss",
    "screened": "screening",
    "fine_pruning": "Fine-Pruning",
    "strip": "STRIP",
    "entropy_filter": "entropy filter",
    "patch": "patch term",
    "patch+discrepancy": "patch and discrepancy terms",
}
# Which of the paper's models and data stands beside ours
BESIDE = {
    ("1", "llava"): ("OpenFlamingo", "COCO"),
    ("2", "flamingo"): ("Otter", "COCO"),
    ("2", "blip2"): ("BLIP-2", "COCO"),
    ("3", "llava"): ("OpenFlamingo", "Flickr30k"),
}
COLUMNS = {
    "scenes": {
        "clean_bleu4": "B@4 clean",
        "clean_cider": "CIDEr clean",
        "triggered_bleu4": "B@4 triggered",
        "triggered_cider": "CIDEr triggered",
        "asr": "ASR %",
        "false_alarm_rate": "false alarms %",
    },
    "easy_vqa": {
        "clean_vqa_accuracy": "accuracy clean %",
        "triggered_vqa_accuracy": "accuracy triggered %",
        "asr": "ASR %",
        "false_alarm_rate": "false alarms %",
    },
}
HEAD = """# The paper's tables and figure, at a small size

Made by `python benchmarks/paper.py --tables 1,2,3,4,5 --figure 3` from `benchmarks/results/paper.jsonl` and those
rows of `defense_grid.jsonl` and `screening_grid.jsonl` that have the same settings. 5 % of 2,000 rows are poisoned,
three epochs, 200 test images. A cell is the mean over its seeds and, in brackets, from the lowest to the highest end
of the seeds' 95 % bootstrap intervals over the images. **The paper's numbers stand beside ours to show the form of
its tables: they are of other models, thousands of times larger, and of other data.** Screening is [rule
8](../benchmarks/screening_split.md)'s on seeds 0 and 1 and rule 15's on seed 2; on clean easy-VQA it is rule 16's on
seeds 0 to 8. All but rule 8's go back to the weights of step 0 after the warm-up, and rule 16's to the start of the
learning rate's schedule ([rows before that](../benchmarks/results/paper_before.jsonl)). What was not run is listed at
[the end](#not-run).
"""
Groups = Mapping[str, list[dict[str, Any]]]


def key(settings: Mapping[str, Any]) -> str:
    """What the seeds of a cell have in common."""
    return identity({**settings, "seed": None})


def group(rows: Iterable[dict[str, Any]]) -> Groups:
    """The rows of each cell."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def number(rows: list[dict[str, Any]], name: str) -> str:
    """Mean over the seeds, and what their intervals span."""
    found = [row for row in rows if row.get(name) is not None]
    if not found:
        return ""
    lows, highs = zip(*(row[f"{name}_interval"] for row in found), strict=True)
    mean, low, high = f"{fmean(row[name] for row in found):.1f}", f"{min(lows):.1f}", f"{max(highs):.1f}"
    return mean + (f" ({low} to {high})" if high != low else "")


def takes_hold(rows: list[dict[str, Any]]) -> str:
    """Whether an attack fires on most triggered images and hardly on clean ones; for cells without a defence."""
    if not rows or rows[0].get("asr") is None or rows[0]["config"] or rows[0]["defence"] != "none":
        return ""
    return "yes" if fmean(row["asr"] - row["false_alarm_rate"] for row in rows) > 50 else "**no**"


def lines_of(part: str, groups: Groups, seeds: int, task: str, architecture: str) -> list[list[str]]:
    """The lines of a table for one task and architecture, sorted by attack."""
    lines = []
    chosen = [cell for cell in cells(part) if cell_of(cell) == (task, architecture)]
    for settings in sorted(chosen, key=lambda cell: list(ATTACKS).index(cell["attack"])):
        rows = groups.get(key(settings), [])
        values = [number(rows, name) for name in COLUMNS[task]]
        if not rows:
            values = ["not run", *[""] * (len(values) - 1)]
        name = DEFENCES.get(settings["defence"], settings["defence"])
        line = [ATTACKS[settings["attack"]], name, f"{len(rows)}", *values, takes_hold(rows)]
        lines.append([*line, _paper_number(part, architecture, settings)])
    return lines


def _paper_number(part: str, architecture: str, settings: Mapping[str, Any]) -> str:
    attack, defence = settings["attack"], settings["defence"]
    if (part, architecture) in BESIDE:
        found = RESULTS[BESIDE[part, architecture]].get((attack, defence))
    else:
        found = {"4": ABLATION, "5": BASELINES}[part].get(defence) if attack == "badnets" else None
    return " / ".join(f"{value:.1f}" for value in found) if found else ""


def table_of(part: str, groups: Groups, seeds: int, task: str, architecture: str, beside: str) -> str:
    """One Markdown table."""
    header = ["attack", "defence", "seeds", *COLUMNS[task].values(), "takes hold", f"in the paper ({beside}): B@4 / "
              "CIDEr / ASR"]  # fmt: skip
    return table(header, lines_of(part, groups, seeds, task, architecture))


def background_table(groups: Groups) -> str:
    """WaNet on plain and on textured scenes."""
    lines = []
    for part in ("1", "2"):
        for settings in cells(part):
            rows = [row for row in groups.get(key(settings), []) if "plain_asr" in row]
            if settings["attack"] == "wanet":
                names = [ARCHITECTURES[settings["architecture"]], DEFENCES[settings["defence"]], str(len(rows))]
                rates = [number(rows, f"{where}_asr") for where in ("plain", "textured")]
                lines.append([*names, *(rates if rows else ["not run", ""])])
    return table(["model", "defence", "seeds", "ASR %, plain", "ASR %, textured"], lines)


def weights_table(groups: Groups) -> str:
    """One line for each weight and value."""
    lines = []
    for settings in cells("figure 3"):
        rows = groups.get(key(settings), [])
        names = ("asr", "clean_bleu4", "clean_cider", "triggered_cider")
        values = [number(rows, name) for name in names] if rows else ["not run", "", "", ""]
        is_start = " (start)" if settings["config"] == PAPER_LOSS else ""
        lines.append([settings["defence"] + is_start, str(len(rows)), *values])
    return table(["weight", "seeds", "ASR %", "B@4 clean", "CIDEr clean", "CIDEr triggered"], lines)


def plot(groups: Groups, path: Path) -> None:
    """Attack success and clean CIDEr against each weight, and against each other along the second."""
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    axes = figure.subplots(1, 4)
    for axis, name in zip(axes, WEIGHTS, strict=False):
        points = _points(groups, name)
        quality = axis.twinx()
        for value, asr, cider in points:
            axis.scatter([value], [asr], color="tab:red", s=12)
            quality.scatter([value], [cider], color="tab:blue", s=12, marker="s")
        means = sorted({value for value, _, _ in points})
        for shown, place, color in ((axis, 1, "tab:red"), (quality, 2, "tab:blue")):
            heights = [fmean(point[place] for point in points if point[0] == value) for value in means]
            shown.plot(means, heights, color=color, alpha=0.5)
        axis.set(xscale="log", xlabel=name, ylim=(0, 105))
        quality.set_ylim(0, 520)
        axis.set_ylabel("ASR, %", color="tab:red")
        quality.set_ylabel("CIDEr, clean", color="tab:blue")
    last = (0.0, 0.0)
    labels: list[tuple[str, tuple[float, float]]] = []
    for value, (asr, cider) in weight_means(groups, key, "lambda_discrepancy").items():
        axes[3].scatter([cider], [asr], color="tab:purple", s=12)
        is_beside = abs(cider - last[0]) < 15 and abs(asr - last[1]) < 5
        # One label for points that lie together
        name = f"{labels.pop()[0]}, {value:g}" if is_beside else f"{value:g}"
        last = (cider, asr)
        labels.append((name, last))
    for name, point in labels:
        axes[3].annotate(name, point, fontsize=7, ha="right", xytext=(4, 6), textcoords="offset points")
    axes[3].set(xlabel="CIDEr, clean", ylabel="ASR, %", xlim=(200, 500), ylim=(0, 110))
    axes[3].set_title("by lambda_discrepancy", fontsize=9)
    figure.savefig(path, dpi=110)


def _points(groups: Groups, name: str) -> list[tuple[float, float, float]]:
    return [
        (settings["config"][name], row["asr"], row["clean_cider"])
        for settings in cells("figure 3")
        if settings["defence"].startswith(name)
        for row in groups.get(key(settings), [])
    ]


def not_run(groups: Groups, seeds: int) -> list[str]:
    """A line for each table, model and defence with cells that have fewer seeds than asked for."""
    missing: dict[str, list[str]] = defaultdict(list)
    for part in ("1", "2", "3", "4", "5", "figure 3"):
        for settings in cells(part):
            count = len(groups.get(key(settings), []))
            if count < seeds:
                where = part.capitalize() if part.startswith("figure") else f"Table {part}"
                data = "easy-VQA" if settings["task"] == "easy_vqa" else "scenes"
                name = DEFENCES.get(settings["defence"], settings["defence"])
                line = f"{where}, {ARCHITECTURES[settings['architecture']]}, {data}, {name}"
                missing[line].append(f"{ATTACKS[settings['attack']]} {count} of {seeds} seeds")
    return [f"- {line}: {', '.join(cells_of)}" for line, cells_of in missing.items()]


def write_report(rows: list[dict[str, Any]], seeds: int) -> None:
    """The page and its picture."""
    groups = group(rows)
    (DOCS / "images").mkdir(exist_ok=True)
    plot(groups, DOCS / "images" / "paper_figure3.png")
    sections = [
        HEAD,
        "**What to expect of the paper's loss.** " + " ".join(expectations(groups, key)),
        "## Table 1: LLaVA, scenes",
        table_of("1", groups, seeds, "scenes", "llava", "OpenFlamingo, COCO"),
        "## Table 2: Flamingo and BLIP-2, scenes",
        "The paper has no undefended numbers for these two. Ours caption unequally well; their cards say how well: "
        "[Flamingo](../cvreg_trainer/lab/base_models/flamingo/MODEL_CARD.md), "
        "[BLIP-2](../cvreg_trainer/lab/base_models/blip2/MODEL_CARD.md), "
        "[LLaVA](../cvreg_trainer/lab/base_model/MODEL_CARD.md).",
        "### Flamingo",
        table_of("2", groups, seeds, "scenes", "flamingo", "Otter, COCO"),
        "### BLIP-2",
        table_of("2", groups, seeds, "scenes", "blip2", "BLIP-2, COCO"),
        "### WaNet by background",
        "A warp moves nothing on a plain background; of the test scenes about one in seven has one.",
        background_table(groups),
        "## Table 3: LLaVA, easy-VQA",
        "Other people's pictures and questions, answered in a word, mostly yes or no. The paper's second data set is "
        "Flickr30k.",
        table_of("3", groups, seeds, "easy_vqa", "llava", "OpenFlamingo, Flickr30k"),
        "## Table 4: the terms, one after the other (BadNets)",
        table_of("4", groups, seeds, "scenes", "llava", "OpenFlamingo, COCO"),
        "## Table 5: other defences",
        "Fine-Pruning and STRIP are given 100 clean rows; how each was rendered stands in its file in "
        "`cvreg_trainer/lab/baselines`. Those of the paper are of BadNets only.",
        "### Scenes",
        table_of("5", groups, seeds, "scenes", "llava", "Flickr30k"),
        "### easy-VQA",
        table_of("5", groups, seeds, "easy_vqa", "llava", "Flickr30k"),
        "## Figure 3: the weights (BadNets)",
        "![Attack success and quality by weight](images/paper_figure3.png)",
        weights_table(groups),
        "## Which of the paper's statements hold here",
        table(["the paper (sections 4.2 to 4.6)", "here", "holds here"], statements(groups, key)),
        "## Not run",
        f"Cells with fewer than {seeds} seeds. The command above runs them.",
        "\n".join(not_run(groups, seeds)) or "None.",
    ]
    path = DOCS / "paper.md"
    path.write_text("\n\n".join(section.strip() for section in sections) + "\n")
    print(f"{path}: {len(rows)} rows")
