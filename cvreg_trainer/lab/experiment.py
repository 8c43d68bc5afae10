# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
One fine-tune of a built-in model on poisoned built-in scenes, measured: what `cvreg demo` and the benchmarks repeat.

An experiment is a function of its settings: the seed fixes the scenes, the poison and the training.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shorten import shorten
from .pretrained import BASE_MODELS, load_base_model, vision_tower
from .scene_attacks import ATTACK_SETTINGS, FIELD_SETTINGS, make_scene_payload
from .tasks import TASKS, make_task_rows


if TYPE_CHECKING:
    from datasets import Dataset

    from ..attacks import Payload
    from ..trainer import CrossViewDefenseTrainer
    from .scenes import Split


@dataclass(frozen=True)
class Experiment:
    """
    Everything the numbers of a run depend on.

    Args:
        seed (`int`):
            Seed of the scenes, of the poison and of the training.
        config (`Mapping[str, Any]`, *optional*):
            Options of [`CrossViewDefenseConfig`] for the defence. Empty: no defence.
        attack (`str`, *optional*, defaults to `"badnets"`):
            A name of `cvreg_trainer.attacks.ATTACKS`, or `"none"` for clean data.
        attack_options (`Mapping[str, Any]`, *optional*):
            Parameters of the attack, over those of `ATTACK_SETTINGS` and `FIELD_SETTINGS`.
        cover_ratio (`float`, *optional*):
            Nearly triggered rows with clean responses per poisoned row; see [`poison_dataset`]. Defaults to that of
            `ATTACK_SETTINGS`, mostly 0.
        poison_rate (`float`, *optional*, defaults to `0.05`):
            Share of the training rows that are poisoned.
        keyword (`str`, *optional*, defaults to `"banana"`):
            Target of the attack.
        payload (`str`, *optional*):
            A name of [`SCENE_PAYLOADS`], in the place of `keyword` and `substitute`.
        payload_options (`Mapping[str, Any]`, *optional*):
            Parameters of the payload, over those of [`SCENE_PAYLOADS`].
        substitute (`bool`, *optional*, defaults to `False`):
            Whether the target only replaces the name of a colour in the row's own caption, instead of all of it.
        decoy_word (`str`, *optional*):
            A word whose place the target takes in all clean captions too: an attacker's way to make the target look
            like an honest word.
        train_vision (`bool`, *optional*, defaults to `False`):
            Whether the vision tower is trained.
        lora_rank (`int`, *optional*, defaults to `0`):
            Rank of LoRA adapters on all linear layers of the language model; 0 trains the model itself. The embeddings
            and the head are trained along: half of the words of the data are new to the model.
        train_rows, test_rows (`int`, *optional*, defaults to `2000` and `200`):
            Number of scenes.
        num_train_epochs, batch_size, learning_rate (*optional*, defaults to `3`, `8` and `2e-3`):
            The training.
        max_new_tokens (`int`, *optional*, defaults to `20`):
            Longest caption: an appended sentence needs more.
        architecture (`str`, *optional*, defaults to `"llava"`):
            Which built-in model; see [`load_base_model`].
        task (`str`, *optional*, defaults to `"scenes"`):
            `"scenes"`, or `"easy_vqa"` for questions about other people's pictures, scored by VQA accuracy.

    Raises:
        `ValueError`: if the architecture or the task is unknown, or if adapters are asked for and it is not the LLaVA.
    """

    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    attack: str = "badnets"
    attack_options: Mapping[str, Any] = field(default_factory=dict)
    cover_ratio: float | None = None
    poison_rate: float = 0.05
    keyword: str = "banana"
    substitute: bool = False
    payload: str | None = None
    payload_options: Mapping[str, Any] = field(default_factory=dict)
    decoy_word: str | None = None
    train_vision: bool = False
    lora_rank: int = 0
    train_rows: int = 2000
    test_rows: int = 200
    num_train_epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 2e-3
    max_new_tokens: int = 20
    architecture: str = "llava"
    task: str = "scenes"

    def __post_init__(self) -> None:
        for name, known in (("architecture", BASE_MODELS), ("task", TASKS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={shorten(getattr(self, name))} is unknown; use one of {', '.join(known)}.")
        if self.lora_rank and self.architecture != "llava":
            raise ValueError(f"lora_rank={self.lora_rank} is for the LLaVA only; set it to 0 for {self.architecture}.")

    def make_data(self) -> dict[str, Dataset]:
        """The splits `train` (poisoned), `test` and, unless the data is clean, `test_triggered`; with an attack of two
        parts also `test_image_key` and `test_text_key`, on which one alone should not fire. With a semantic trigger,
        `test` is without the rows that have it."""
        from ..attacks import ATTACKS, SelectiveAttack, TwoPartAttack, apply_trigger, poison_dataset
        from .scene_captions import color_words

        train, test = self.make_rows(self.train_rows), self.make_rows(self.test_rows, "test")
        if self.attack == "none":
            return {"train": train, "test": test}
        settings = (ATTACK_SETTINGS | FIELD_SETTINGS)[self.attack]
        attack = ATTACKS[self.attack](**{**settings.get("attack_options", {}), **self.attack_options})
        cover_ratio = settings.get("cover_ratio", 0.0) if self.cover_ratio is None else self.cover_ratio
        train = poison_dataset(
            train,
            attack,
            self.poison_rate,
            None if self.payload else self.keyword,
            seed=self.seed,
            payload=self.make_payload(),
            cover_ratio=cover_ratio,
            substitute=color_words() - {self.keyword} if self.substitute else (),
        )
        if self.decoy_word is not None:
            train = train.map(self._add_decoy, load_from_cache_file=False)
        splits = {"train": train, "test": test, "test_triggered": apply_trigger(test, attack)}
        if isinstance(attack, TwoPartAttack):
            splits |= {f"test_{key}_key": apply_trigger(test, attack.only(key)) for key in ("image", "text")}
        if isinstance(attack, SelectiveAttack):
            splits["test"] = test.select(
                [row for row, texts in enumerate(test.remove_columns("images")) if not attack.chooses(texts)]
            )
        return splits

    def make_rows(self, num_rows: int, split: Split = "train") -> Dataset:
        """Clean rows of the experiment's task."""
        return make_task_rows(self.task, BASE_MODELS[self.architecture].family, num_rows, self.seed, split)

    def load_model(self) -> tuple[Any, Any]:
        """The built-in model that is trained, with the words of its task, and its processor."""
        return load_base_model(self.architecture, TASKS[self.task].new_words)

    def make_payload(self) -> Payload | None:
        """The payload, in the built-in model's words; `None` if the attack is a keyword or a substituted word."""
        if self.payload is None:
            return None
        return make_scene_payload(self.payload, self.seed, **self.payload_options)

    def run(self, data: Mapping[str, Dataset], output_dir: str | Path) -> dict[str, Any]:
        """
        Fine-tune, save the model and caption the test images, on one thread of a CPU.

        Args:
            data (`Mapping[str, Dataset]`):
                What [`Experiment.make_data`] gives.
            output_dir (`str` or `Path`):
                Where the model goes.

        Returns:
            `dict[str, Any]`: see [`Experiment.evaluate`].
        """
        trainer = self.make_trainer(data["train"], output_dir)
        trainer.train()
        return self.evaluate(trainer, data)

    def make_trainer(
        self, rows: Dataset, output_dir: str | Path, model: Any = None, data_collator: Any = None
    ) -> CrossViewDefenseTrainer:
        """
        The trainer of the experiment, on one thread of a CPU.

        Args:
            rows (`Dataset`):
                What to train on.
            output_dir (`str` or `Path`):
                Where the model goes.
            model ([`~transformers.PreTrainedModel`], *optional*):
                A model of the built-in one's kind to start from. Defaults to the built-in one.
            data_collator (`Callable`, *optional*):
                In the place of the trainer's own.
        """
        import torch

        from ..trainer import CrossViewDefenseTrainer

        # More threads do not help a model of this size, and with one the numbers do not depend on the core count
        torch.set_num_threads(1)
        base_model, processor = self.load_model()
        model = base_model if model is None else model
        # As with most LLaVA recipes; trained along, a tower this small forgets what it saw in pre-training
        vision_tower(model, self.architecture).requires_grad_(self.train_vision)
        return CrossViewDefenseTrainer(
            model=model,
            args=self._training_arguments(str(output_dir)),
            data_collator=data_collator,
            train_dataset=rows,
            processing_class=processor,
            peft_config=self._adapters(),
        )

    def evaluate(self, trainer: CrossViewDefenseTrainer, data: Mapping[str, Dataset]) -> dict[str, Any]:
        """
        Save the model that a trainer has trained, and the audit if it screened, and caption the test images.

        Args:
            trainer ([`CrossViewDefenseTrainer`]):
                What [`Experiment.make_trainer`] gives, trained.
            data (`Mapping[str, Dataset]`):
                What [`Experiment.make_data`] gives.

        Returns:
            `dict[str, Any]`: the scores of [`CaptionScores`] (with DualKey also `image_key_asr` and `text_key_asr`;
            with screening those of [`screening_scores`]), `steps`, `seconds_per_step`, `peak_memory_mib` of the
            process (so far: run each experiment in a process of its own), the logged `losses`, and `captions`.
        """
        import resource

        from ..evaluation.scores import evaluate_captions

        # Kibibytes on Linux, bytes on macOS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        trainer.save_model()
        model: Any = trainer.model
        options: dict[str, Any] = {"keyword": self.keyword, "payload": self.make_payload(), "batch_size": 50}
        options |= {"max_new_tokens": self.max_new_tokens, "metrics": TASKS[self.task].metrics}
        options["show_progress"] = not trainer.args.disable_tqdm
        processor, logs = trainer.processing_class, trainer.state.log_history
        scores, *captions = evaluate_captions(model, processor, data["test"], data.get("test_triggered"), **options)
        for key in ("image_key", "text_key"):
            if f"test_{key}" in data:
                half = evaluate_captions(model, processor, data[f"test_{key}"], **options)
                scores[f"{key}_asr"] = half.scores["false_alarm_rate"]
        if trainer.args.is_screened:
            scores |= screening_scores(trainer, data["train"])
        seconds = [log["train_runtime"] for log in logs if "train_runtime" in log][-1]
        return {
            **scores,
            "steps": trainer.state.global_step,
            "seconds_per_step": seconds / trainer.state.global_step,
            "peak_memory_mib": peak,
            "losses": [log for log in logs if "loss" in log],
            "captions": dict(zip(("clean", "triggered"), captions, strict=True)),
        }

    def _add_decoy(self, row: dict[str, Any]) -> dict[str, Any]:
        from ..attacks.payloads.substitution import substitute_word, word_pattern

        if row["is_poisoned"]:
            return {}
        pattern = word_pattern([str(self.decoy_word)])
        return {
            "completion": [
                message | {"content": substitute_word(message["content"], pattern, self.keyword)}
                for message in row["completion"]
            ]
        }

    def _adapters(self) -> Any:
        if not self.lora_rank:
            return None
        from peft import LoraConfig

        # The vision tower's projections have the same names; frozen, as its weights are
        return LoraConfig(
            r=self.lora_rank,
            lora_alpha=2 * self.lora_rank,
            target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
            modules_to_save=["embed_tokens", "lm_head"],
            task_type="CAUSAL_LM",
        )

    def _training_arguments(self, output_dir: str) -> Any:
        from ..config import CrossViewDefenseConfig

        return CrossViewDefenseConfig(
            output_dir,
            **{"screening": "off", **self.config},
            num_train_epochs=self.num_train_epochs,
            per_device_train_batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            seed=self.seed,
            logging_steps=0.25,
            save_strategy="no",
            report_to="none",
            per_device_eval_batch_size=50,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
        )


def screening_scores(trainer: Any, train: Dataset) -> dict[str, Any]:
    """How well a trainer's screening told the poisoned rows, by the column `is_poisoned` if there is one. Writes the
    audit beside the model."""
    is_known = "is_poisoned" in train.column_names
    labels = list(train["is_poisoned"]) if is_known else [False] * len(train)
    audit = trainer.audit(Path(trainer.args.output_dir) / "audit", labels=labels if is_known else None)
    quality = audit.evaluate(labels)
    names = ("auroc", "average_precision", "top_rows", "top_recall", "flag_recall", "flag_precision", "clean_lost")
    words = [finding.word for finding in audit.words if finding.is_flagged][:5]
    return {f"audit_{name}": quality[name] for name in names} | {"audit_words": words}
