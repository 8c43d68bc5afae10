# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The picture of docs/screening.md: what is unexplained in two data sets, how well features and content predict it.

    python benchmarks/screening_picture.py --looks looks --model captioner --output docs/images/screening.png

Needs the folder of looks that `screening_sensitivity.py` keeps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from screening_sensitivity import FDR, SEEDS, read_looks
from transformers import AutoProcessor

from cvreg_trainer.lab.experiment import Experiment
from cvreg_trainer.screening.verdict.candidates import WHOLE_RESPONSES, find_candidates
from cvreg_trainer.screening.verdict.content import content_limit
from cvreg_trainer.screening.verdict.evidence import EvidenceFinder
from cvreg_trainer.screening.verdict.rivals import Rivals
from cvreg_trainer.screening.verdict.rule import RULE
from cvreg_trainer.screening.verdict.words import find_words


PANELS = {
    "scenes_wanet": "Drawn scenes: 'banana' behind a warped image (WaNet)",
    "real_blended_refusal": "Third-party pictures: refusals behind a blended image",
}
LEAST_ROWS = 10
NUM_LABELS = 4


def draw(axes: Any, folder: Path, tokenizer: Any, title: str) -> None:
    """Each unexplained word with 10 rows or more, by what predicts its rows."""
    looks, marked = read_looks(folder)
    words = [find_words(looks[name], tokenizer) for name in ("base", "warm", "other")]
    candidates = find_candidates(*words, looks["other"].row_values[:, 0] > 0)
    candidates = [one for one in candidates if len(one.rows) >= LEAST_ROWS and one.word != WHOLE_RESPONSES]
    seed = SEEDS[folder.name.split("_")[0]]
    values, rivals = (looks["base"].row_values, looks["warm"].row_values), Rivals(words[1], tokenizer.all_special_ids)
    finder = EvidenceFinder(*values, candidates, rivals, seed, FDR)
    evidence = finder.find([one.rows for one in candidates], np.ones(len(candidates), dtype=bool))
    strength = np.linspace(0, 1, 200)
    limit = content_limit(strength, np.full(200, LEAST_ROWS))
    is_strong = strength >= RULE.min_strength
    axes.fill_betweenx(strength[is_strong], -0.15, limit[is_strong], color="#f6d5cf", label="flagged")
    is_poison = np.array([marked[one.rows].mean() >= 0.5 for one in candidates])
    sizes = np.array([len(one.rows) for one in candidates])
    for chosen, colour, label in ((~is_poison, "#5a7fa8", "honest rows"), (is_poison, "#c0392b", "poisoned rows")):
        places = evidence.content[chosen], evidence.strength[chosen]
        axes.scatter(*places, 2 * np.sqrt(sizes[chosen]), colour, alpha=0.7, linewidths=0, label=f"word in {label}")
        # The strongest, and of words in the same rows the most surprising one
        nats = np.array([one.nats for one in candidates])[chosen]
        order = np.flatnonzero(chosen)[np.lexsort((-nats, -evidence.strength[chosen].round(2)))]
        seen: list[tuple[float, float]] = []
        for place in order.tolist():
            point = float(evidence.content[place]), float(evidence.strength[place])
            if len(seen) < NUM_LABELS and all(abs(point[1] - other[1]) > 0.05 for other in seen):
                axes.annotate(candidates[place].word, point, (4, 3), textcoords="offset points", fontsize=7)
                seen.append(point)
    axes.set(
        xlim=(-0.15, 1), ylim=(-0.15, 1.05), title=title, xlabel="predicted by content (correlation, out of fold)"
    )
    axes.title.set_fontsize(9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of the captioner")
    parser.add_argument("--output", type=Path, default=Path("docs/images/screening.png"))
    options = parser.parse_args()
    figure = Figure((9.5, 4.2), dpi=130, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
        is_real = name.startswith("real")
        processor = AutoProcessor.from_pretrained(options.model) if is_real else Experiment(seed=0).load_model()[1]
        draw(axes, options.looks / name, processor.tokenizer, title)
    panels[0].set_ylabel("predicted by low-level features")
    panels[0].legend(loc="lower right", fontsize=7)
    figure.savefig(options.output)


if __name__ == "__main__":
    main()
