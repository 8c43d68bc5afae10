# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The table of families in the documentation: measured, written and read back."""

import tempfile
from collections.abc import Collection
from pathlib import Path

import transformers
import trl
from family_checks import CHECKS, YES, measure
from family_models import OWN
from family_processors import PROCESSED
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


DOCUMENT = Path(__file__).parents[2] / "docs" / "families.md"
FAMILIES = dict(sorted({**OWN, **PROCESSED}.items()))
ESSENTIAL = ("loss and gradient", "same tokens", "rows without image")
REFUSED = "refused"
NOTE = "see below"

INTRODUCTION = """\
# Families

How `CrossViewDefenseTrainer` works with each family in transformers' `MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING`, measured
on tiny random models by `python tests/families/make_table.py` with transformers {transformers} and TRL {trl}. Do not
edit this page by hand: the tests compare it with what they measure.

- **inputs**: the family's processor; if that needs torchvision or more, a collate function like a user's, around
  transformers' image processor or plain pixels. Rows always hold PIL images.
- **loss and gradient**: with all three lambdas above 0, loss and gradient equal the paper's formula, computed in
  float64 from full logits and hidden states of two separate forwards; the gradient reaches every part of the model
  (vision tower, projector, language model), and training moves it.
- **same tokens**: both views have the same ids, masks and labels and differ in their pixels; no image token is a
  label.
- **rows without image**: the same check for batches that contain such rows, and for batches of only such rows.
- **checkpointing**, **re-entrant**: the loss, including the middle layer's features, and the gradient are unchanged
  under either kind of gradient checkpointing.
- **LoRA**: adapters on all linear layers train, and nothing else does.

"""


def measure_family(name: str, checks: Collection[str]) -> dict[str, str]:
    """The results of some checks. A family that the trainer refuses has one result."""
    victim = FAMILIES[name]()
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for check in checks:
            results[check] = measure(victim, check, Path(folder))
            if results[check].startswith(f"{REFUSED}:"):
                return dict.fromkeys(CHECKS, results[check])
    return results


def render(results: dict[str, dict[str, str]], inputs: dict[str, str]) -> str:
    """The document."""
    text = INTRODUCTION.format(transformers=transformers.__version__, trl=trl.__version__)
    text += f"| family | class | inputs | {' | '.join(CHECKS)} |\n|{' --- |' * (3 + len(CHECKS))}\n"
    notes = []
    for name, result in results.items():
        refused = next(iter(result.values())).startswith(f"{REFUSED}:")
        short = [value if value == YES else REFUSED if refused else NOTE for value in result.values()]
        text += f"| {name} | {class_of(name)} | {inputs[name]} | {' | '.join(short)} |\n"
        for value in dict.fromkeys(result.values()):
            if value != YES:
                checks = [check for check in result if result[check] == value]
                notes.append(f"- {name}, {', '.join(checks[: 1 if refused else None])}: {value}\n")
    text += "\n## What is different, in the words of the error where there is one\n\n"
    text += "What fails in transformers itself also fails in the bare model, without this package.\n\n" + "".join(
        notes
    )
    text += "\n## Classes that are not measured\n\n" + ", ".join(unmeasured()) + "\n"
    return text


def parse(text: str) -> dict[str, dict[str, str]]:
    """The results in a document."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    rows = [line.strip("| \n").split(" | ") for line in lines[1:]]
    results = {row[0]: dict(zip(CHECKS, row[3:], strict=True)) for row in rows}
    for line in text.splitlines():
        if line.startswith("- ") and not line.startswith("- **"):
            subject, _, value = line.removeprefix("- ").partition(": ")
            name, *checks = subject.split(", ")
            for check in CHECKS if value.startswith(REFUSED) else checks:
                results[name][check] = value
    return results


def measured_version(text: str) -> str:
    """The version of transformers that a document was measured on."""
    return text.partition("with transformers ")[2].split()[0]


def class_of(name: str) -> str:
    return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[name.split(" (")[0]]


def unmeasured() -> list[str]:
    """Classes of the mapping without an entry here."""
    return sorted(set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()) - {class_of(name) for name in FAMILIES})
