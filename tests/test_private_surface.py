# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Every name that the package overrides or uses of transformers, TRL, accelerate, datasets and PEFT without their promise
to keep it: private ones, and those imported from their inner modules.

Notable:
- This is the first test to read when a new release of one of them fails: it says what changed and which files of the
  package to look at. Then change the package, and the table last.
- The table cannot go stale. The package's sources are searched for such names, and one that the table lacks is a
  failure, as is one that the table has and its files do not.
- Signatures are compared without annotations, which no call depends on.
"""

import ast
import importlib
import importlib.metadata
import inspect
import pkgutil
import textwrap
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from transformers import MptForCausalLM, PreTrainedModel, ProcessorMixin
from trl import SFTTrainer

import cvreg_trainer
from cvreg_trainer import CrossViewDefenseTrainer


pytestmark = pytest.mark.lowest
PACKAGE = Path(cvreg_trainer.__file__).parent
LIBRARIES = ("accelerate", "datasets", "peft", "transformers", "trl")
# An attribute of a class, one that is set on `self`, or a constant of a module
ATTRIBUTE = "attribute"


class Foreign(NamedTuple):
    """
    A name that is not ours.

    Args:
        owner (`str`):
            The module, or the class as `module:class`, that has it.
        name (`str`):
            The name.
        signature (`str`):
            Its parameters, those of its constructor for a class, or `ATTRIBUTE`.
        files (`str`):
            Where the package overrides or uses it.
    """

    owner: str
    name: str
    signature: str
    files: str

    @property
    def label(self) -> str:
        return f"{self.owner.rpartition(':')[2].rpartition('.')[2]}.{self.name}"


CONFIG, TRAINER, TRL = "trl:SFTConfig", "transformers:Trainer", "trl:SFTTrainer"
MODEL, MPT = "transformers:PreTrainedModel", "transformers.models.mpt.modeling_mpt"
FLAMINGO, SCORING = "models/flamingo/backbone_flamingo.py", "screening/passes/scoring_pass.py"
TABLE = [
    Foreign(TRL, "_set_signature_columns_if_needed", "(self)", "trainer.py"),
    Foreign(TRL, "_signature_columns", ATTRIBUTE, "trainer.py"),
    Foreign(TRL, "_is_vision_dataset", ATTRIBUTE, "collators/choice.py trainer.py"),
    Foreign(TRL, "_tokenizer", ATTRIBUTE, "trainer.py"),
    Foreign(
        TRAINER,
        "_run_epoch",
        "(self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, "
        "ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, "
        "steps_trained_in_current_epoch)",
        "trainer.py",
    ),
    Foreign(TRAINER, "_get_num_items_in_batch", "(self, batch_samples, device)", "trainer.py"),
    Foreign(TRAINER, "_load_from_checkpoint", "(self, resume_from_checkpoint, model=None)", "trainer.py"),
    Foreign(TRAINER, "_load_best_model", "(self)", "trainer.py"),
    Foreign(TRAINER, "_created_lr_scheduler", ATTRIBUTE, "screening/schedule.py"),
    Foreign(TRAINER, "_load_optimizer_and_scheduler", "(self, checkpoint)", "trainer.py"),
    Foreign(TRL, "_save_checkpoint", "(self, model, trial)", "trainer.py"),
    Foreign(TRAINER, "_get_output_dir", "(self, trial)", "trainer.py"),
    Foreign(TRAINER, "_remove_unused_columns", "(self, dataset, description=None)", "trainer.py"),
    Foreign(TRAINER, "_prepare_inputs", "(self, inputs)", f"{SCORING} safeguards/first_row.py"),
    Foreign(TRAINER, "_get_collator_with_removed_columns", "(self, data_collator, description=None)", SCORING),
    Foreign(TRL, "_tag_names", ATTRIBUTE, "trainer.py"),
    Foreign(TRL, "_name", ATTRIBUTE, "trainer.py"),
    Foreign(TRL, "_paper", ATTRIBUTE, "trainer.py"),
    Foreign(TRL, "aux_loss_enabled", ATTRIBUTE, "safeguards/first_row.py"),
    Foreign(TRAINER, "loss_is_scaled_for_ga", ATTRIBUTE, "trainer.py"),
    Foreign(TRAINER, "get_tp_size", "(self)", "trainer.py"),
    Foreign(CONFIG, "_VALID_DICT_FIELDS", ATTRIBUTE, "config.py"),
    Foreign("transformers:PreTrainedConfig", "_attn_implementation", ATTRIBUTE, "lab/baselines/reading.py"),
    Foreign(MODEL, "_init_weights", "(self, module)", FLAMINGO),
    Foreign(MODEL, "_no_split_modules", ATTRIBUTE, FLAMINGO),
    Foreign(MODEL, "_supports_sdpa", ATTRIBUTE, FLAMINGO),
    Foreign(MODEL, "_supports_flash_attn", ATTRIBUTE, FLAMINGO),
    Foreign(MODEL, "_supports_attention_backend", ATTRIBUTE, FLAMINGO),
    Foreign("transformers.core_model_loading", "_weight_conversions", ATTRIBUTE, FLAMINGO),
    Foreign(
        "transformers:ProcessorMixin",
        "_merge_kwargs",
        "(self, ModelProcessorKwargs=None, tokenizer_init_kwargs=None, **kwargs)",
        "models/flamingo/processing_flamingo.py",
    ),
    Foreign(
        "trl.trainer.sft_trainer",
        "DataCollatorForVisionLanguageModeling",
        "(processor, max_length=None, completion_only_loss=False, pad_to_multiple_of=None, "
        "dataset_text_field='text', assistant_only_loss=False, chat_template=None, return_tensors='pt')",
        "callbacks.py lab/baselines/scoring.py",
    ),
    Foreign("accelerate.commands.launch", "launch_command", "(args)", "commands/sft.py"),
    Foreign("accelerate.commands.launch", "launch_command_parser", "(subparsers=None)", "commands/sft.py"),
    Foreign("trl.cli.accelerate_config", "resolve_accelerate_config_argument", "(launch_args)", "commands/sft.py"),
    Foreign("trl.trainer.utils", "get_config_model_id", "(config)", "config.py"),
    Foreign("trl.trainer.utils", "maybe_gather_lm_head_ctx", "(*params)", "head/cross_view_head.py"),
    Foreign(
        "trl.data_utils",
        "apply_chat_template",
        "(example, processing_class, tools=None, **template_kwargs)",
        "collators/encoder_decoder.py",
    ),
    Foreign(
        "trl.data_utils",
        "prepare_multimodal_messages",
        "(messages, images=None)",
        "collators/encoder_decoder.py evaluation/generation.py",
    ),
    Foreign(MPT, "MptAttention", "(config, layer_idx=None)", "models/flamingo/mpt_attention.py"),
    Foreign(
        "transformers.models.mpt.modeling_mpt:MptAttention",
        "forward",
        "(self, hidden_states, position_bias, cache=None, attention_mask=None, **kwargs)",
        "models/flamingo/mpt_attention.py",
    ),
    Foreign(
        "transformers.configuration_utils",
        "SubConfigSpec",
        "(config_class, model_type=None, init_kwargs=None, optional=False)",
        "models/flamingo/configuration_flamingo.py",
    ),
    Foreign("transformers.image_utils", "is_valid_image", "(img)", "models/flamingo/processing_flamingo.py"),
    Foreign(
        "transformers.modeling_layers",
        "GradientCheckpointingLayer",
        "(*args, **kwargs)",
        "models/flamingo/layers_flamingo.py",
    ),
    Foreign("transformers.trainer_utils", "PREFIX_CHECKPOINT_DIR", ATTRIBUTE, "safeguards/checkpoints.py trainer.py"),
    Foreign(
        "transformers.trainer_utils",
        "has_length",
        "(dataset)",
        f"safeguards/non_finite.py {SCORING} screening/known_rows.py screening/looks.py "
        "screening/training_screen.py screening/warm_up.py trainer.py",
    ),
    Foreign(
        "transformers.utils",
        "ModelOutput",
        "(*args, **kwargs)",
        "head/cross_view_head.py models/flamingo/modeling_flamingo.py",
    ),
    Foreign("transformers.utils", "logging", ATTRIBUTE, "models/flamingo/published_layouts.py"),
    Foreign(
        "transformers.utils.deprecation",
        "deprecate_kwarg",
        "(old_name, version, new_name=None, warn_if_greater_or_equal_version=False, "
        "raise_if_greater_or_equal_version=False, raise_if_both_names=False, additional_message=None)",
        f"{FLAMINGO} models/flamingo/modeling_flamingo.py",
    ),
    Foreign("accelerate.utils", "gather_object", "(object)", "callbacks.py data/skipping.py"),
    Foreign("accelerate.utils", "is_peft_model", "(model)", "trainer.py"),
    Foreign(
        "accelerate.utils",
        "send_to_device",
        "(tensor, device, non_blocking=False, skip_keys=None)",
        "screening/training_screen.py",
    ),
]


def signature_of(value: Any) -> str:
    """Names, kinds and defaults of the parameters of a function or class; `ATTRIBUTE` for anything else."""
    if not (inspect.isroutine(value) or inspect.isclass(value)):
        return ATTRIBUTE
    signature = inspect.signature(value)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def assigned(owner: type | ModuleType) -> set[str]:
    """Names that the source of a class sets on `self`, or that of a module on anything."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and (inspect.ismodule(owner) or ast.unparse(node.value) == "self")
    }


def is_foreign(owner: Any) -> bool:
    return owner.__module__.partition(".")[0] in LIBRARIES


@cache
def foreign_names(owner: type) -> set[str]:
    """The private names that a class has of classes which are not ours."""
    bases = [base for base in owner.__mro__ if is_foreign(base)]
    return {name for base in bases for name in {*vars(base), *assigned(base)} if is_private(name)}


def overridden(owner: type) -> set[str]:
    """The private names of foreign classes that a class of ours replaces."""
    return foreign_names(owner) & set(vars(owner))


def found(entry: Foreign) -> str:
    """What is there today."""
    module, _, class_name = entry.owner.partition(":")
    owner: Any = importlib.import_module(module)
    owner = getattr(owner, class_name) if class_name else owner
    if hasattr(owner, entry.name):
        return signature_of(getattr(owner, entry.name))
    places = [base for base in owner.__mro__ if is_foreign(base)] if class_name else [owner]
    return ATTRIBUTE if any(entry.name in assigned(place) for place in places) else "nothing"


def sources() -> Iterable[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text())


def modules() -> list[ModuleType]:
    names = [module.name for module in pkgutil.walk_packages(cvreg_trainer.__path__, "cvreg_trainer.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def in_table(name: str, file: str) -> bool:
    return any(entry.name == name and file in entry.files.split() for entry in TABLE)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.label)
def test_it_is_what_the_package_expects(entry: Foreign) -> None:
    library = entry.owner.partition(":")[0].partition(".")[0]
    today = found(entry)
    assert today == entry.signature, (
        f"{entry.label} of {library} {importlib.metadata.version(library)} has changed: expected {entry.signature}, "
        f"found {today}. Look at cvreg_trainer/{entry.files.replace(' ', ', cvreg_trainer/')}."
    )


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.label)
def test_its_files_have_it(entry: Foreign) -> None:
    assert entry.files
    for file in entry.files.split():
        assert entry.name in (PACKAGE / file).read_text(), f"{file} no longer has {entry.name}: take it off the table"


def test_no_override_is_missing() -> None:
    classes = {value for module in modules() for value in vars(module).values() if inspect.isclass(value)}
    ours = [owner for owner in classes if owner.__module__.startswith("cvreg_trainer.")]
    assert CrossViewDefenseTrainer in ours
    missing = []
    for owner in ours:
        file = owner.__module__.removeprefix("cvreg_trainer.").replace(".", "/") + ".py"
        missing += [f"{owner.__name__}.{name} ({file})" for name in overridden(owner) if not in_table(name, file)]
    assert not missing, f"overridden, but not in the table: {sorted(missing)}"


def test_no_use_is_missing() -> None:
    names = set().union(
        *(foreign_names(owner) for owner in (SFTTrainer, PreTrainedModel, ProcessorMixin, MptForCausalLM))
    )
    missing = [
        f"{ast.unparse(node)} ({file}, line {node.lineno})"
        for file, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in names and not in_table(node.attr, file)
    ]
    assert not missing, f"used, but not in the table: {missing}"


def test_no_import_from_an_inner_module_is_missing() -> None:
    missing = [
        f"{node.module}.{alias.name} ({file}, line {node.lineno})"
        for file, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and "." in (node.module or "")
        for alias in node.names
        if str(node.module).partition(".")[0] in LIBRARIES and not in_table(alias.name, file)
    ]
    assert not missing, f"imported, but not in the table: {missing}"


def test_changes_are_found() -> None:
    class Trainer(CrossViewDefenseTrainer):
        _inner_training_loop = None
        _is_vision_dataset = False  # set in the constructor of SFTTrainer
        _of_its_own = None

    assert overridden(Trainer) == {"_inner_training_loop", "_is_vision_dataset"}
    entry = Foreign(TRAINER, "_run_epoch", "(self, model)", "trainer.py")
    assert found(entry) != entry.signature
    assert found(entry._replace(name="_run_epochs")) == "nothing"
    with pytest.raises(
        AssertionError, match=r"Trainer._run_epoch of transformers 5.* Look at cvreg_trainer/trainer.py"
    ):
        test_it_is_what_the_package_expects(entry)
    with pytest.raises(AssertionError, match="take it off the table"):
        test_its_files_have_it(entry._replace(name="_inner_training_loop"))
