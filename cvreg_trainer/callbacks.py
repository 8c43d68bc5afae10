# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Callbacks for the trainer: caption quality and attack success while training goes on."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .data.rows import references_of
from .evaluation.generation import generate_captions
from .metrics import AttackSuccessRate, Bleu4, Cider
from .metrics.attack_success_rate import keyword_pattern


class CaptionEvaluationCallback(TrainerCallback):
    """
    Generates captions for a fixed sample at each evaluation, and logs how good they are and whether a backdoor fires.

    Logged beside `eval_loss`, from 0 to 100 as papers print them: `eval_bleu4` and `eval_cider`; with a triggered set
    also `eval_asr` (the keyword on triggered images) and `eval_false_alarm_rate` (the keyword on clean ones). They
    also enter the metrics that `trainer.evaluate()` returns, so `metric_for_best_model="cider"` works. CIDEr takes its
    document frequencies from the references of the sample: compare it only between runs with the same sample.

    With a dict of evaluation sets the sample is scored once an evaluation, after the first of them; evaluations under
    another prefix than `eval` are left alone.

    Args:
        trainer ([`~transformers.Trainer`]):
            Trainer to which the callback is added. Its model, processor and evaluation set are used.
        eval_dataset ([`~datasets.Dataset`] or [`~torch.utils.data.Dataset`], *optional*):
            Clean rows, as dicts with images and a prompt (see [`generate_captions`]). The references are in a column
            `references` (`str` or `list[str]`), or else the completion or last assistant turn is the only one.
            Defaults to the trainer's evaluation set.
        triggered_dataset ([`~datasets.Dataset`] or [`~torch.utils.data.Dataset`], *optional*):
            The same with triggered images and the *true* captions, as [`apply_trigger`] makes it.
        keyword (`str`, *optional*, defaults to `"banana"`):
            Word that the attack puts into the answer. Rows whose references contain it do not count for the rates.
        num_samples (`int`, *optional*, defaults to `64`):
            Number of rows drawn (with a fixed seed) from each set; all of a smaller one.
        batch_size (`int`, *optional*, defaults to `16`):
            Rows generated at once, on each process.
        max_new_tokens (`int`, *optional*, defaults to `20`):
            Longest caption, in tokens.
        num_beams (`int`, *optional*, defaults to `1`):
            Number of beams; 1 is greedy.

    Raises:
        `ValueError`: if there is no single evaluation set, it is empty, a row has no reference, or the references of
        all rows of the sample contain the keyword.
        `TypeError`: if a data set cannot be indexed.

    Example:

    ```python
    >>> trainer = CrossViewDefenseTrainer(model, args, train_dataset=train, eval_dataset=test)
    >>> trainer.add_callback(CaptionEvaluationCallback(trainer, triggered_dataset=apply_trigger(test, BadNets())))
    >>> trainer.train()
    ```
    """

    def __init__(
        self,
        trainer: Trainer,
        eval_dataset: Any = None,
        triggered_dataset: Any = None,
        keyword: str = "banana",
        num_samples: int = 64,
        batch_size: int = 16,
        max_new_tokens: int = 20,
        num_beams: int = 1,
    ) -> None:
        if eval_dataset is None:
            eval_dataset = trainer.eval_dataset
        if eval_dataset is None or isinstance(eval_dataset, Mapping):
            given = "None" if eval_dataset is None else f"a dict with the keys {list(eval_dataset)}"
            raise ValueError(f"The evaluation set is {given}; name the rows to caption with `eval_dataset=`.")
        if num_samples < 1:
            raise ValueError(f"`num_samples` must be at least 1, got {num_samples}.")
        self.trainer = trainer
        self.keyword = keyword
        self.generation: dict[str, Any] = {
            "batch_size": batch_size,
            "max_new_tokens": max_new_tokens,
            "num_beams": num_beams,
        }
        self.clean = _Sample("eval_dataset", eval_dataset, num_samples)
        self.triggered = None
        if triggered_dataset is not None:
            self.triggered = _Sample("triggered_dataset", triggered_dataset, num_samples)
            for sample in (self.clean, self.triggered):
                sample.check_keyword(keyword)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Generates, scores and logs; adds the scores to `metrics`."""
        if metrics is not None and not self._is_due(metrics):
            return
        scores = self._score()
        self.trainer.log(dict(scores))
        if metrics is not None:
            metrics.update(scores)

    def _is_due(self, metrics: dict[str, float]) -> bool:
        prefix = "eval"
        if isinstance(self.trainer.eval_dataset, Mapping):
            prefix += f"_{next(iter(self.trainer.eval_dataset))}"
        return f"{prefix}_runtime" in metrics  # the one entry that the trainer always makes

    def _score(self) -> dict[str, float]:
        captions, references = self._generate(self.clean), self.clean.references
        scores = {
            "eval_bleu4": Bleu4().compute(predictions=captions, references=references)["bleu4"],
            "eval_cider": Cider().compute(predictions=captions, references=references)["cider"],
        }
        if self.triggered is not None:
            rate = AttackSuccessRate(keyword=self.keyword)
            triggered = self._generate(self.triggered)
            scores["eval_asr"] = rate.compute(predictions=triggered, references=self.triggered.references)["asr"]
            scores["eval_false_alarm_rate"] = rate.compute(predictions=captions, references=references)["asr"]
        return scores

    def _generate(self, sample: _Sample) -> list[str]:
        """The captions of a sample; each process makes a share, and all get all."""
        accelerator = self.trainer.accelerator
        count = accelerator.num_processes
        # Every process makes equally many calls, repeating the last row if need be: sharded models must step together.
        share = -(-len(sample) // count)
        first = accelerator.process_index * share
        rows = [sample[min(index, len(sample) - 1)] for index in range(first, first + share)]
        captions = generate_captions(
            self.trainer.model,
            self.trainer.processing_class,
            rows,
            add_special_tokens=not self._trains_without_special_tokens(),
            show_progress=self.trainer.is_world_process_zero() and not self.trainer.args.disable_tqdm,
            **self.generation,
        )
        return gather_object(captions)[: len(sample)]

    def _trains_without_special_tokens(self) -> bool:
        from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling  # seconds to import

        collator = self.trainer.data_collator
        return isinstance(getattr(collator, "inner", collator), DataCollatorForVisionLanguageModeling)


class _Sample:
    """Rows drawn from a data set with a fixed seed, read anew each time, and their references."""

    def __init__(self, name: str, dataset: Any, size: int) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(
                f"`{name}` ({type(dataset).__name__}) cannot be indexed. Pass a part of it as a list: "
                f"`{name}=list(dataset.take({size}))`."
            )
        if len(dataset) == 0:
            raise ValueError(f"`{name}` is empty; pass at least one row.")
        self.name, self.dataset = name, dataset
        self.indices = sorted(random.Random(0).sample(range(len(dataset)), min(size, len(dataset))))
        self.references = [self._references(index) for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Mapping[str, Any]:
        return self.dataset[self.indices[position]]

    def check_keyword(self, keyword: str) -> None:
        pattern = keyword_pattern(keyword)
        if all(any(pattern.search(text) for text in group) for group in self.references):
            raise ValueError(
                f"All references of the sample of `{self.name}` contain keyword={keyword!r}, so no attack could be "
                "told from a true caption. Pass rows with their true captions, for example in a column `references`."
            )

    def _references(self, index: int) -> list[str]:
        row = self.dataset[index]
        texts = references_of(row) if isinstance(row, Mapping) else []
        if not texts:
            what = f"the columns {sorted(row)}" if isinstance(row, Mapping) else f"type {type(row).__name__}"
            raise ValueError(
                f"Row {index} of `{self.name}` has {what} and no reference caption. Add a column `references` "
                "(`list[str]`), `completion`, or `messages` that end with the assistant's turn."
            )
        return texts
