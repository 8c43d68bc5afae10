# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a model card says about the defence: the paper, what was on, with which values, and what was left out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .config import CrossViewDefenseConfig
from .data.skipping import SkippedRows
from .screening.verdict.rule import RULE
from .screening.verdict.screen import Screen


PAPER = {
    "title": "A Patch-based Cross-view Regularized Framework for Backdoor Defense in Multimodal Large Language Models",
    "id": "2604.04488",
    # docstyle-ignore
    "citation": """\
@article{fang2026patch,
    title        = {{A Patch-based Cross-view Regularized Framework for Backdoor Defense in Multimodal Large Language
                    Models}},
    author       = {Tianmeng Fang and Yong Wang and Zetai Kong and Zengzhen Su and Jun Wang and Chengjin Yu and
                    Wei Wang},
    year         = 2026,
    eprint       = {arXiv:2604.04488},
}""",
}
HEADING = "## Backdoor defence"
MAX_WORDS = 10
MAX_LENGTH = 120  # characters of a word or reason


def defence_section(
    args: CrossViewDefenseConfig, uses_cross_view_loss: bool, screen: Screen | None, skipped: SkippedRows | None = None
) -> str:
    """
    What a reader of the model card should know about the defence.

    Args:
        args ([`CrossViewDefenseConfig`]):
            Configuration of the training.
        uses_cross_view_loss (`bool`):
            Whether the paper's terms were part of the loss.
        screen ([`Screen`], *optional*):
            Result of the screening, if there is one.
        skipped ([`SkippedRows`], *optional*):
            Rows that could not be trained on.

    Returns:
        `str`: Markdown. Words of the training data stand in code spans: whoever wrote them does not write the card.
    """
    lines = [HEADING, ""]
    if uses_cross_view_loss:
        lines += [
            "Trained with the cross-view loss of the paper below: "
            f"`lambda_patch={args.lambda_patch:g}`, `lambda_discrepancy={args.lambda_discrepancy:g}`, "
            f"`lambda_entropy={args.lambda_entropy:g}`, `entropy_threshold={args.entropy_threshold:g}`.",
            "",
        ]
    if screen is not None:
        flagged, rows = int(screen.is_flagged.sum()), len(screen.is_flagged)
        done = "left out" if args.screening == "drop" else "trained on all the same"
        lines += [
            f"Screened with `screening={args.screening!r}`, seed {args.seed}: {flagged:,} of {rows:,} training "
            f"rows ({flagged / max(rows, 1):.1%}) were flagged as suspicious and {done}. A flag is a reason to look, "
            "not a verdict.",
            "",
        ]
        if rows < RULE.enough_rows:
            lines += [f"Screening finds nothing in fewer than {RULE.enough_rows} rows.", ""]
        words = [word for word in screen.words if word.is_flagged][:MAX_WORDS]
        if words:
            lines += ["| word | rows | reason |", "| --- | ---: | --- |"]
            lines += [f"| {_code(word.word)} | {word.num_rows:,} | {_code(word.reason)} |" for word in words]
            lines.append("")
    if len(lines) == 2:
        lines += ["None: screening was off and the three lambdas were 0, or there were no images.", ""]
    if skipped is not None and skipped.reasons:
        number, rows = len(skipped.reasons), skipped.num_rows
        lines += [f"{number:,} of {rows:,} training rows could not be read and were left out.", ""]
    return "\n".join(lines)


def with_section(card: str, section: str, before: Iterable[str] = ("### Framework versions", "## Citations")) -> str:
    """
    A model card with a section put in, in front of the first of some headings that it has, else at the end.

    Args:
        card (`str`):
            The Markdown of the card.
        section (`str`):
            What to put in.
        before (`Iterable[str]`, *optional*):
            Headings.
    """
    for heading in before:
        place = card.find(f"\n{heading}")
        if place >= 0:
            return f"{card[: place + 1]}{section}\n{card[place + 1 :]}"
    return f"{card.rstrip()}\n\n{section}"


def _code(text: str) -> str:
    """Text of the data as a code span in a table cell, where nothing of it is markup."""
    plain = "".join(character if character.isprintable() else "\ufffd" for character in text[:MAX_LENGTH])
    # A fence longer than any run of backticks inside; a table's cells are cut at bars before spans are read
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}".replace("|", "\\|")
