# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The training arguments of [`CrossViewDefenseTrainer`]: SFTTrainer's, and the few that the defence adds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments
from trl import SFTConfig
from trl.trainer.utils import get_config_model_id

from .perturbations import OPERATIONS
from .screening.verdict.rule import RULE


FEATURE_POOLINGS = ("mean", "last")
SCREENINGS = ("off", "drop", "report")
ON_BAD_ROW = ("raise", "skip")
LAMBDAS = ("lambda_patch", "lambda_discrepancy", "lambda_entropy")


class _Unsaved(str):
    """A string that becomes `None` when it is pickled, and stays as it is in copies."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __copy__(self) -> _Unsaved:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Unsaved:
        return self


@dataclass
class CrossViewDefenseConfig(SFTConfig):
    r"""
    Configuration class for the [`CrossViewDefenseTrainer`].

    It has all parameters of [`~trl.SFTConfig`] and those below. By default the data are screened, and the paper's
    terms are off: a lambda above 0 turns its term on. With `screening="off"` too the trainer is SFTTrainer.

    Parameters:
        lambda_patch (`float`, *optional*, defaults to `0.0`):
            Weight of the feature consistency between the two views (the paper's lambda1). The term is a squared
            distance of hidden states and large early in training: start at 0.01.
        lambda_discrepancy (`float`, *optional*, defaults to `0.0`):
            Weight of the cross-view output similarity, which is minimised (lambda2): start at 0.5.
        lambda_entropy (`float`, *optional*, defaults to `0.0`):
            Weight of the entropy hinge (lambda3): start at 0.1.
        entropy_threshold (`float`, *optional*, defaults to `0.2`):
            Entropy below which a token's distribution is penalised, in nats (H0).
        lambda_warmup_steps (`float`, *optional*, defaults to `0.0`):
            Optimiser steps over which the three weights rise linearly from 0: a number of steps if 1 or more, a share
            of the training if below 1. The paper has none; it helps where the terms drown the first steps.
        feature_layer (`int` or `str`, *optional*):
            Decoder layer whose output is compared between the views: an index from 0, negative from the end, or the
            dotted name of a module. Defaults to the middle layer, `num_hidden_layers // 2`.
        feature_pooling (`str`, *optional*, defaults to `"mean"`):
            How a row's features become one vector: `"mean"` over the real tokens, or the `"last"` real token. In
            encoder-decoder models: over the decoder positions with a label.
        patch_area_min (`float`, *optional*, defaults to `0.01`):
            Smallest area of the perturbed rectangle, as a share of the image.
        patch_area_max (`float`, *optional*, defaults to `0.05`):
            Largest area of the perturbed rectangle, as a share of the image.
        patch_operations (`list[str]`, *optional*, defaults to `["mask", "noise", "shuffle"]`):
            What may happen to the rectangle; one is drawn for each image.
        screening (`str`, *optional*, defaults to `"drop"`):
            What to do about rows that a backdoor may hide in: `"drop"` trains on strong views of all rows for a
            warm-up, looks at how the model sees each row's response, and goes on without the suspicious rows;
            `"report"` does the same and goes on with all rows, for a person to look at the audit; `"off"` trains on
            all as they are. With fewer than 200 rows nothing is found. It can leave out honest rows and miss poisoned
            ones: look at `trainer.audit()` before you trust the model.
        screening_epochs (`float`, *optional*):
            Epochs that the warm-up takes; parts of an epoch are fine. Defaults to a twelfth of the
            training, or to 60 optimiser steps if that is more, up to half of it.
        screening_rows (`int`, *optional*, defaults to `4_000`):
            Rows that the model looks at. Of more, so many are drawn by chance, and what is found among them is looked
            for in the others by their words and low-level features. Of a stream all are looked at.
        screening_cap (`float`, *optional*, defaults to `0.3`):
            Largest share of the rows that screening may flag. Reaching it is a warning.
        screening_fdr (`float`, *optional*, defaults to `0.01`):
            Expected share of false findings among the words that something in the input is found to cause (Benjamini
            and Hochberg 1995).
        screening_decisions (`str`, *optional*):
            CSV or Parquet file of rows and words to keep or drop, which win over the screening: the `decisions.csv` of
            an audit, filled in.
        on_bad_row (`str`, *optional*, defaults to `"raise"`):
            What to do about a row whose image cannot be read or whose text cannot be trained on: `"raise"` stops with
            an error that names it; `"skip"` reads every row before the training, which decodes each image once
            more, leaves such rows out of the training and the evaluation set, and lists them.

    > [!NOTE]
    > `max_length` defaults to `"auto"` instead of `1024`: no truncation for data with images, whose image tokens it
    > would cut, and 1024 otherwise.
    """

    _VALID_DICT_FIELDS = SFTConfig._VALID_DICT_FIELDS

    lambda_patch: float = field(
        default=0.0,
        metadata={"help": "Weight of the feature consistency of the two views (the paper's lambda1); start at 0.01."},
    )
    lambda_discrepancy: float = field(
        default=0.0,
        metadata={"help": "Weight of the output similarity, which is minimised (the paper's lambda2); start at 0.5."},
    )
    lambda_entropy: float = field(
        default=0.0,
        metadata={"help": "Weight of the entropy hinge (the paper's lambda3); start at 0.1."},
    )
    entropy_threshold: float = field(
        default=0.2,
        metadata={"help": "Entropy in nats below which a token's distribution is penalised (the paper's H0)."},
    )
    lambda_warmup_steps: float = field(
        default=0.0,
        metadata={
            "help": "Optimiser steps over which the three weights rise linearly from 0: a number of steps if 1 or "
            "more, a share of the training if below 1."
        },
    )
    feature_layer: str | None = field(
        default=None,
        metadata={
            "help": "Decoder layer whose output is compared between the views: an index from 0, negative from the "
            "end, or the dotted name of a module. Defaults to the middle layer."
        },
    )
    feature_pooling: str = field(
        default="mean",
        metadata={
            "help": "How a row's features become one vector: 'mean' over the real tokens, or the 'last' real token.",
            "choices": list(FEATURE_POOLINGS),
        },
    )
    patch_area_min: float = field(
        default=0.01,
        metadata={"help": "Smallest area of the perturbed rectangle, as a share of the image."},
    )
    patch_area_max: float = field(
        default=0.05,
        metadata={"help": "Largest area of the perturbed rectangle, as a share of the image."},
    )
    patch_operations: list[str] = field(
        default_factory=lambda: list(OPERATIONS),
        metadata={"help": "What may happen to the rectangle: any of mask, noise, shuffle. One is drawn per image."},
    )
    screening: str = field(
        default="drop",
        metadata={
            "help": "What to do about rows that a backdoor may hide in: 'drop' leaves them out after a warm-up, "
            "'report' only lists them, 'off' trains on all rows.",
            "choices": list(SCREENINGS),
        },
    )
    screening_epochs: float | None = field(
        default=None,
        metadata={
            "help": "Epochs that the warm-up before the screening takes. Defaults to a twelfth of the training, "
            "or 60 optimiser steps if that is more, up to half of it."
        },
    )
    screening_rows: int = field(
        default=4_000,
        metadata={
            "help": "Rows that the model looks at. Of more, so many are drawn by chance, and what is found among them "
            "is looked for in the others by their words and low-level features. Of a stream all are looked at."
        },
    )
    screening_cap: float = field(
        default=0.3,
        metadata={"help": "Largest share of the rows that screening may flag."},
    )
    screening_fdr: float = field(
        default=0.01,
        metadata={"help": "Expected share of false findings among words that something in the input causes."},
    )
    screening_decisions: str | None = field(
        default=None,
        metadata={
            "help": "CSV or Parquet file of rows and words to keep or drop, which win over the screening: the "
            "decisions.csv of an audit, filled in."
        },
    )
    on_bad_row: str = field(
        default="raise",
        metadata={
            "help": "What to do about a row that cannot be read: 'raise' stops with an error that names it, 'skip' "
            "reads every row before the training and leaves it out.",
            "choices": list(ON_BAD_ROW),
        },
    )
    max_length: int | str | None = field(  # type: ignore[assignment]
        default="auto",
        metadata={
            "help": "Maximum length of the tokenized sequence; longer ones are truncated. 'auto' means no truncation "
            "for data with images, whose image tokens it would cut, and 1024 otherwise."
        },
    )

    def __post_init__(self) -> None:
        # The command line passes these as strings
        self.max_length = _int_or_name(self.max_length)
        self.feature_layer = _int_or_name(self.feature_layer)
        if self.max_length != "auto" and not (self.max_length is None or _is_int(self.max_length)):
            raise ValueError(f"`max_length` must be an integer, None or 'auto', got {self.max_length!r}.")
        # TRL sets the old names by default, and transformers warns about them whoever sets them
        if self.activation_checkpointing is None:
            self.activation_checkpointing = self.gradient_checkpointing
        if self.activation_checkpointing_kwargs is None:
            self.activation_checkpointing_kwargs = self.gradient_checkpointing_kwargs
        super().__post_init__()
        for name in LAMBDAS:
            self._check(name, lambda value: value >= 0, "0 (which leaves the term out) or more")
        self._check("entropy_threshold", lambda value: value >= 0, "0 or more, in nats")
        self._check("lambda_warmup_steps", lambda value: value >= 0, "0, a share below 1, or a number of steps")
        self._check("patch_area_min", lambda value: 0 < value <= 1, "a share of the image, above 0 and at most 1")
        self._check("patch_area_max", lambda value: 0 < value <= 1, "a share of the image, above 0 and at most 1")
        if self.patch_area_min > self.patch_area_max:
            raise ValueError(
                f"`patch_area_min` ({self.patch_area_min}) is larger than `patch_area_max` ({self.patch_area_max}). "
                "Swap them, or set both to the same share."
            )
        if self.feature_layer is not None and not isinstance(self.feature_layer, (int, str)):
            raise ValueError(
                f"`feature_layer` must be a layer index or the dotted name of a module, got {self.feature_layer!r}."
            )
        if self.feature_pooling not in FEATURE_POOLINGS:
            raise ValueError(
                f"`feature_pooling` must be one of {', '.join(FEATURE_POOLINGS)}, got {self.feature_pooling!r}."
            )
        if self.on_bad_row not in ON_BAD_ROW:
            raise ValueError(f"`on_bad_row` must be one of {', '.join(ON_BAD_ROW)}, got {self.on_bad_row!r}.")
        self._check_operations()
        self._check_screening()

    @classmethod
    def recommended(cls, output_dir: str | None = None, **options: Any) -> CrossViewDefenseConfig:
        """
        The defaults under another name.

        Args:
            output_dir (`str`, *optional*):
                As everywhere.
            **options:
                Any parameter of the configuration.
        """
        return cls(output_dir, **options)

    def __getstate__(self) -> dict[str, Any]:
        # transformers pickles its arguments next to the model, and pushes that file to the Hub
        return {**self.__dict__, "hub_token": self.hub_token and _Unsaved(self.hub_token)}

    @property
    def is_screened(self) -> bool:
        """Whether suspicious rows are looked for."""
        return self.screening != "off"

    @property
    def drops_rows(self) -> bool:
        """Whether suspicious rows are left out."""
        return self.screening == "drop"

    @property
    def uses_cross_view_loss(self) -> bool:
        """Whether any of the three terms has a weight."""
        return max(self.lambda_patch, self.lambda_discrepancy, self.lambda_entropy) > 0

    def lambda_scale(self, step: int, max_steps: int) -> float:
        """Factor of the three weights at an optimiser step counted from 0, in a training of `max_steps`."""
        warmup = self.lambda_warmup_steps
        warmup = math.ceil(warmup * max_steps) if warmup < 1 else warmup
        return min(1.0, (step + 1) / warmup) if warmup else 1.0

    def _check(self, name: str, holds: Any, remedy: str) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not holds(value):
            raise ValueError(f"`{name}` must be {remedy}, got {value!r}.")

    def _check_screening(self) -> None:
        if self.screening not in SCREENINGS:
            raise ValueError(f"`screening` must be one of {', '.join(SCREENINGS)}, got {self.screening!r}.")
        if self.screening_epochs is not None:
            self._check("screening_epochs", lambda value: value > 0, "a number of epochs above 0, or None")
            if self.max_steps <= 0 and self.screening_epochs >= self.num_train_epochs and self.is_screened:
                raise ValueError(
                    f"`screening_epochs` ({self.screening_epochs}) leaves nothing of the training "
                    f"(`num_train_epochs={self.num_train_epochs}`) for the screened rows. Lower it."
                )
        enough = f"a whole number of rows, {RULE.enough_rows} or more: a cause cannot be told from chance in fewer"
        self._check("screening_rows", lambda value: value >= RULE.enough_rows and value == int(value), enough)
        self._check("screening_cap", lambda value: 0 < value <= 1, "a share of the rows, above 0 and at most 1")
        self._check("screening_fdr", lambda value: 0 < value < 1, "a share of the findings, between 0 and 1")
        if self.screening_decisions is not None and not self.is_screened:
            raise ValueError(
                f"`screening_decisions={str(self.screening_decisions)!r}` is about screening, which is off. Set "
                "`screening='drop'`, or leave the rows out of the data set yourself."
            )

    def _check_operations(self) -> None:
        if isinstance(self.patch_operations, str):
            self.patch_operations = [name.strip() for name in self.patch_operations.split(",")]
        unknown = [name for name in self.patch_operations if name not in OPERATIONS]
        if unknown or not self.patch_operations:
            raise ValueError(
                f"`patch_operations` must name one or more of {', '.join(OPERATIONS)}, got {self.patch_operations!r}."
            )


def as_cross_view_config(args: TrainingArguments | None, model: Any) -> CrossViewDefenseConfig:
    """
    The configuration that a trainer's `args` stand for.

    Args:
        args ([`~transformers.TrainingArguments`], *optional*):
            Arguments of any class; what they do not have keeps its default. With `None` the output folder is named
            after the model.
        model (`str` or [`~transformers.PreTrainedModel`]):
            The trainer's model.

    Returns:
        [`CrossViewDefenseConfig`]: `args` themselves if they are one.
    """
    if isinstance(args, CrossViewDefenseConfig):
        return args
    if args is None:
        name = model if isinstance(model, str) else get_config_model_id(model.config)
        return CrossViewDefenseConfig(f"{name.split('/')[-1]}-CrossViewDefense")
    values = args.to_dict()
    # `to_dict` masks every value whose name ends in `_token`
    values |= {name: getattr(args, name) for name in values if name.endswith("_token")}
    return CrossViewDefenseConfig(**values)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _int_or_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() in ("none", "null", ""):
        return None
    return int(value) if value.lstrip("-").isdigit() else value
