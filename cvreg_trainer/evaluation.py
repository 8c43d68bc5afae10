# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How well a model describes clean and triggered images, and how often the backdoor's keyword comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

from datasets import Dataset

from .generation import generate_captions
from .metrics import AttackSuccessRate, Bleu4, Cider


class CaptionScores(NamedTuple):
    """
    Scores of a model, and the captions they were computed from.

    Args:
        scores (`dict[str, float]`):
            On the scale papers print: `clean_bleu4`, `clean_cider`, `triggered_bleu4`, `triggered_cider`, `asr`
            (keyword on triggered images) and `false_alarm_rate` (keyword on clean ones), both in percent.
        clean, triggered (`list[str]`):
            Captions of the clean and of the triggered images.
    """

    scores: dict[str, float]
    clean: list[str]
    triggered: list[str]


def evaluate_captions(
    model: Any,
    processor: Any,
    clean: Dataset,
    triggered: Dataset,
    keyword: str = "banana",
    **generation: Any,
) -> CaptionScores:
    """
    Caption clean and triggered images and score both against the true captions.

    Three numbers stand apart, because one hides the others: quality on clean images, quality on triggered ones, and
    how often the keyword comes out.

    Args:
        model, processor:
            What to evaluate; see [`generate_captions`].
        clean (`datasets.Dataset`):
            Rows with images, a prompt and `references`, the true captions.
        triggered (`datasets.Dataset`):
            The same rows with triggered images; see [`apply_trigger`].
        keyword (`str`, *optional*, defaults to `"banana"`):
            The attack's keyword.
        **generation:
            Options of [`generate_captions`].

    Returns:
        [`CaptionScores`]
    """
    metrics: tuple[Any, ...] = (Bleu4(), Cider(), AttackSuccessRate(keyword=keyword))
    scores: dict[str, float] = {}
    captions = {}
    for name, dataset in (("clean", clean), ("triggered", triggered)):
        captions[name] = generate_captions(model, processor, dataset, **generation)
        texts = {"predictions": captions[name], "references": list(dataset["references"])}
        results = {key: value for metric in metrics for key, value in metric.compute(**texts).items()}
        scores |= {f"{name}_bleu4": results["bleu4"], f"{name}_cider": results["cider"]}
        scores["asr" if name == "triggered" else "false_alarm_rate"] = results["asr"]
    return CaptionScores(scores, captions["clean"], captions["triggered"])
