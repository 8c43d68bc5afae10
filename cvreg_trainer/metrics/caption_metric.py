# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What the caption metrics share: checked inputs, and an `evaluate.Metric` that touches no disk.

`evaluate` writes predictions to a cache in the home directory unless told otherwise, where processes wait for one
another's locks and read-only homes fail. Here everything stays in memory unless `keep_in_memory=False` is passed.
"""

from collections.abc import Sequence
from typing import Any

import datasets

from ..extras import from_extra


with from_extra("lab"):
    import evaluate


class CaptionMetric(evaluate.Metric):
    """
    Base of metrics of one predicted text and any number of reference texts per item.

    Args:
        keep_in_memory (`bool`, *optional*, defaults to `True`):
            Whether to hold the texts in memory instead of a cache file. Pass `False` only with `num_process` above 1,
            where `evaluate` itself gathers them through files.
        **kwargs:
            Further arguments of `evaluate.Metric`.
    """

    needs_references = True

    def __init__(self, *, keep_in_memory: bool = True, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)
        self.writer: Any = None

    def _build_data_dir(self) -> str:
        # The parent creates the folder even where nothing will be written into it.
        return self._data_dir_root if self.keep_in_memory else super()._build_data_dir()

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            inputs_description="",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any]:
        """
        Scores the texts passed here and through `add_batch`, and forgets them.

        Args:
            predictions (`list[str]`, *optional*):
                One text per item. May be left out after `add_batch`.
            references (`list[list[str]]`, *optional*):
                The reference texts of each item, of any number; a single text may stand for a list of one.
            **kwargs:
                Options of the metric.

        Returns:
            `dict[str, Any]`: the score under the metric's name.

        Raises:
            `ValueError`: if there is nothing to score, the numbers of items differ, or an item has no reference.
            `TypeError`: if something else than a text is passed.
        """
        try:
            if predictions is not None or references is not None:
                self.add_batch(predictions=predictions, references=references)
            if self.writer is None:
                raise ValueError(f"{self.name}: nothing to score; pass `predictions` with at least one text.")
            return super().compute(**kwargs)
        except Exception:
            if self.keep_in_memory:  # a metric that failed once must not drag its texts into the next call
                self.writer = self.buf_writer = self.data = None
            raise

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """
        Adds items to score.

        Args:
            predictions (`list[str]`):
                One text per item.
            references (`list[list[str]]`):
                The reference texts of each item; a single text may stand for a list of one.
        """
        texts = _check_texts(f"{self.name}: `predictions`", predictions)
        if references is None and not self.needs_references:
            references = [[] for _ in texts]
        groups = [
            _check_texts(f"{self.name}: `references[{index}]`", [group] if isinstance(group, str) else group)
            for index, group in enumerate(_check_sequence(f"{self.name}: `references`", references))
        ]
        if len(texts) != len(groups):
            raise ValueError(f"{self.name}: {len(texts)} predictions but references for {len(groups)} items.")
        if self.needs_references and [] in groups:
            raise ValueError(f"{self.name}: `references[{groups.index([])}]` is empty; each item needs a reference.")
        if texts:
            super().add_batch(predictions=texts, references=groups)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """
        Adds one item to score.

        Args:
            prediction (`str`):
                The predicted text.
            reference (`list[str]` or `str`):
                The reference texts.
        """
        # `evaluate.combine` passes the plural names.
        item = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: None if value is None else [value] for name, value in item.items()})


def _check_sequence(name: str, value: Any) -> Sequence[Any]:
    if value is None or isinstance(value, (str, bytes, dict)):
        raise TypeError(f"{name} must be a list with one entry per item, got {type(value).__name__}.")
    return list(value)


def _check_texts(name: str, value: Any) -> list[str]:
    texts = list(_check_sequence(name, value))
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name} must hold texts, got {type(text).__name__} at position {index}.")
    return texts
