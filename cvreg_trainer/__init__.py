# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Fine-tune vision-language models on data you do not fully trust.

The top level is lazy (PEP 562): `import cvreg_trainer` loads neither torch, transformers nor TRL, which take seconds;
each name below loads its module when it is first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__


if TYPE_CHECKING:
    from .attacks import ATTACKS, BadNets, apply_trigger, poison_dataset, write_poison_record
    from .callbacks import CaptionEvaluationCallback
    from .collators import DataCollatorForCrossView, DataCollatorForEncoderDecoder
    from .config import CrossViewDefenseConfig
    from .data import load_coco, load_easy_vqa, load_flickr30k, load_ladd, open_dataset, to_messages
    from .evaluation import evaluate_captions, generate_captions, score_captions
    from .head import CrossViewOutput, add_cross_view_head
    from .lab import load_base_model, make_scenes
    from .metrics import AttackSuccessRate, Bleu4, Cider, VqaAccuracy
    from .perturbations import PatchPerturbation
    from .screening import Audit, RowFinding, WordFinding
    from .trainer import CrossViewDefenseTrainer

# PEFT imports bitsandbytes wherever that is installed, which on some CPUs then warns that it could not fetch a kernel
# for weights in 4 bits. It has another one.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "from kernels-community" not in str(record.msg)
)

__all__ = [
    "ATTACKS",
    "AttackSuccessRate",
    "Audit",
    "BadNets",
    "Bleu4",
    "CaptionEvaluationCallback",
    "Cider",
    "CrossViewDefenseConfig",
    "CrossViewDefenseTrainer",
    "CrossViewOutput",
    "DataCollatorForCrossView",
    "DataCollatorForEncoderDecoder",
    "PatchPerturbation",
    "RowFinding",
    "VqaAccuracy",
    "WordFinding",
    "__version__",
    "add_cross_view_head",
    "apply_trigger",
    "evaluate_captions",
    "generate_captions",
    "load_base_model",
    "load_coco",
    "load_easy_vqa",
    "load_flickr30k",
    "load_ladd",
    "make_scenes",
    "open_dataset",
    "poison_dataset",
    "score_captions",
    "to_messages",
    "write_poison_record",
]

_EXPORTS = {
    "attacks": ["ATTACKS", "BadNets", "apply_trigger", "poison_dataset", "write_poison_record"],
    "callbacks": ["CaptionEvaluationCallback"],
    "collators": ["DataCollatorForCrossView", "DataCollatorForEncoderDecoder"],
    "config": ["CrossViewDefenseConfig"],
    "data": ["load_coco", "load_easy_vqa", "load_flickr30k", "load_ladd", "open_dataset", "to_messages"],
    "evaluation": ["evaluate_captions", "generate_captions", "score_captions"],
    "head": ["CrossViewOutput", "add_cross_view_head"],
    "lab": ["load_base_model", "make_scenes"],
    "metrics": ["AttackSuccessRate", "Bleu4", "Cider", "VqaAccuracy"],
    "perturbations": ["PatchPerturbation"],
    "screening": ["Audit", "RowFinding", "WordFinding"],
    "trainer": ["CrossViewDefenseTrainer"],
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
