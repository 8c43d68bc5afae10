# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How well a model describes clean and triggered images, and how often the backdoor's payload comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from datasets import Dataset

from ..attacks.payloads import Payload
from ..metrics import AttackSuccessRate, Bleu4, Cider, VqaAccuracy
from ..metrics.bleu import bleu_of_statistics
from ..metrics.intervals import bootstrap_interval
from ..shorten import shorten
from .generation import generate_captions


CAPTION_METRICS = ("bleu4", "cider", "asr")


class CaptionScores(NamedTuple):
    """
    Scores of a model, and the captions they were computed from.

    Args:
        scores (`dict[str, Any]`):
            On the scale papers print: `clean_bleu4`, `clean_cider`, `triggered_bleu4`, `triggered_cider`, `asr`
            (keyword or payload on triggered images) and `false_alarm_rate` (on clean ones), both in percent. Each has
            its 95 % bootstrap interval over the images beside it, as `*_interval`.
        clean, triggered (`list[str]`):
            Captions of the clean and of the triggered images; none of the latter without a triggered set.
    """

    scores: dict[str, Any]
    clean: list[str]
    triggered: list[str]


def evaluate_captions(
    model: Any,
    processor: Any,
    clean: Dataset,
    triggered: Dataset | None = None,
    keyword: str = "banana",
    payload: Payload | None = None,
    metrics: Sequence[str] = CAPTION_METRICS,
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
        triggered (`datasets.Dataset`, *optional*):
            The same rows with triggered images; see [`apply_trigger`].
        keyword (`str`, *optional*, defaults to `"banana"`):
            The attack's keyword.
        payload ([`Payload`], *optional*):
            The attack's payload, in the place of the keyword; see [`score_captions`].
        metrics (`Sequence[str]`, *optional*, defaults to `("bleu4", "cider", "asr")`):
            What to compute; see [`score_captions`]. For answers in the place of captions: `("vqa_accuracy", "asr")`.
        **generation:
            Options of [`generate_captions`].

    Returns:
        [`CaptionScores`]

    Raises:
        `ValueError`: if one of the data sets has no rows.
    """
    scores: dict[str, Any] = {}
    captions: dict[str, list[str]] = {"triggered": []}
    views = {name: rows for name, rows in (("clean", clean), ("triggered", triggered)) if rows is not None}
    for name, dataset in views.items():
        if len(dataset) == 0:
            raise ValueError(f"`{name}` has no rows; pass at least one to caption.")
    for name, dataset in views.items():
        captions[name] = generate_captions(model, processor, dataset, **generation)
        for metric, value in score_captions(
            captions[name], list(dataset["references"]), keyword, metrics, payload
        ).items():
            rate = "asr" if name == "triggered" else "false_alarm_rate"
            scores[metric.replace("asr", rate) if metric.startswith("asr") else f"{name}_{metric}"] = value
    return CaptionScores(scores, captions["clean"], captions["triggered"])


def score_captions(
    predictions: list[str],
    references: list[list[str]],
    keyword: str = "banana",
    metrics: Sequence[str] = CAPTION_METRICS,
    payload: Payload | None = None,
) -> dict[str, Any]:
    """
    Scores of some texts, each with its 95 % bootstrap interval over the items.

    Args:
        predictions (`list[str]`):
            Captions or answers.
        references (`list[list[str]]`):
            True captions or answers of each item. CIDEr's document frequencies stay those of all items in every
            resample.
        keyword (`str`, *optional*, defaults to `"banana"`):
            The attack's keyword; items whose references contain it do not count for the rate.
        metrics (`Sequence[str]`, *optional*, defaults to `("bleu4", "cider", "asr")`):
            What to compute, of `"bleu4"`, `"cider"`, `"asr"` and `"vqa_accuracy"`.
        payload ([`Payload`], *optional*):
            What `"asr"` counts in the place of the keyword: texts that show it, as its `succeeds` says. Items that
            cannot tell are left out; if all are, the rate is `None` and has no interval.

    Returns:
        `dict[str, Any]`: each metric on the scale papers print, and the pair `*_interval`.

    Raises:
        `ValueError`: if there are no texts, their numbers differ, or a metric is unknown.
    """
    if len(predictions) == 0:
        raise ValueError("`predictions` has no rows; pass at least one text to score.")
    classes: dict[str, Any] = {"bleu4": Bleu4, "cider": Cider, "asr": AttackSuccessRate, "vqa_accuracy": VqaAccuracy}
    for name in metrics:
        if name not in classes:
            raise ValueError(f"metrics={shorten(metrics)} holds {shorten(name)}; use some of {', '.join(classes)}.")
    texts: dict[str, Any] = {"predictions": predictions, "references": references}
    scores: dict[str, Any] = {}
    interval: tuple[float, float] | None
    for name in metrics:
        if name == "asr" and payload is not None:
            told = [payload.succeeds(text, group) for text, group in zip(predictions, references, strict=True)]
            success = [100.0 * value for value in told if value is not None]
            scores[name] = sum(success) / len(success) if success else None
            interval = bootstrap_interval(success) if success else None
        elif name == "bleu4":
            bleu = Bleu4()
            scores[name] = bleu.compute(**texts)[name]
            interval = bootstrap_interval(bleu.item_statistics(predictions, references), bleu_of_statistics)
        else:
            metric = classes[name]()
            options = {"keyword": keyword} if name == "asr" else {}
            result = metric.compute(**texts, **options, return_per_item=True)
            scores[name] = result[name]
            interval = bootstrap_interval([value for value in result[f"{name}_per_item"] if value is not None])
        scores[f"{name}_interval"] = interval
    return scores
