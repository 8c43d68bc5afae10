# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The training that `cvreg sft` launches, in each of its processes: the script of `trl sft`, defended.

What it adds to that script: data sets on this machine are opened as all commands open them (JSON, Parquet, folders of
images, LLaVA's and ShareGPT's conversations, images inside the data's folder only), and with screening the audit is
written to the folder `audit` of the output folder.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, load_dataset
from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    ScriptArguments,
    TrlParser,
    get_dataset,
    get_peft_config,
    get_quantization_config,
)

from ..config import CrossViewDefenseConfig
from ..data import open_dataset, to_messages
from ..report.runs import write_options
from ..trainer import CrossViewDefenseTrainer
from .audit_training import BUILT_IN


TRACEBACK = "CVREG_TRACEBACK"  # set by `cvreg --traceback`


@dataclass
class SftScriptArguments(ScriptArguments):
    """
    Arguments of `cvreg sft` beside the configurations of the training, the model and a mixture of data sets: those of
    [`~trl.ScriptArguments`], and the following.

    Args:
        image_root (`str`, *optional*):
            Folder that the image paths of a data set on this machine are relative to, and that images may lie in.
            Defaults to the data's own folder.
    """

    image_root: str | None = field(
        default=None,
        metadata={
            "help": "Folder that image paths of a data set on this machine are relative to, and that images may lie "
            "in. Defaults to the data's own folder."
        },
    )


def make_parser(prog: str | None = None) -> TrlParser:
    """The parser of `cvreg sft`: of `trl sft`, with the defence's configuration in the place of SFTConfig."""
    kinds: Any = (SftScriptArguments, CrossViewDefenseConfig, ModelConfig, DatasetMixtureConfig)
    return TrlParser(kinds, prog=prog)


def run(
    script_args: SftScriptArguments,
    training_args: CrossViewDefenseConfig,
    model_args: ModelConfig,
    mixture: DatasetMixtureConfig,
) -> None:
    """
    Train, save, and write the audit.

    Raises:
        `ValueError`: if no model or data set is named, or the data cannot be trained on.
    """
    if model_args.model_name_or_path is None:
        raise ValueError("give --model_name_or_path, the model to fine-tune: a folder or a name on the hub")
    options = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    training_args.model_init_kwargs = {**options, **(training_args.model_init_kwargs or {})}  # type: ignore[dict-item]
    model: Any = model_args.model_name_or_path
    processor = None
    if model == BUILT_IN:
        model, processor = _built_in()
        training_args.model_init_kwargs = None
    splits = load_splits(script_args, mixture, evaluates=training_args.eval_strategy != "no")
    trainer = CrossViewDefenseTrainer(
        model=model,
        args=training_args,
        train_dataset=splits["train"],
        eval_dataset=splits.get("eval"),
        processing_class=processor,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_options(training_args)
    trainer.accelerator.print(f"The model is in {training_args.output_dir}.")
    if training_args.push_to_hub:
        # Before there is an audit: its rows are the data, which nobody asked to publish
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
        trainer.accelerator.print(f"The model is on the hub as {trainer.hub_model_id}.")
    if training_args.is_screened:
        folder = Path(str(training_args.output_dir)) / "audit"
        trainer.accelerator.print(trainer.audit(folder).summary())
        trainer.accelerator.print(f"Look at {folder / 'audit.html'} before you trust the model.")
    trainer.end()


def _built_in() -> tuple[Any, Any]:
    """The built-in model and its processor; its vision tower is not trained, as in `cvreg audit`."""
    from ..lab.pretrained import load_base_model, vision_tower

    model, processor = load_base_model()
    vision_tower(model, "llava").requires_grad_(False)
    return model, processor


def load_splits(script_args: SftScriptArguments, mixture: DatasetMixtureConfig, evaluates: bool) -> dict[str, Any]:
    """
    The data to train on and, where it is wanted, to evaluate on.

    Args:
        script_args ([`SftScriptArguments`]):
            Names a data set.
        mixture ([`~trl.DatasetMixtureConfig`]):
            Names several, which come first.
        evaluates (`bool`):
            Whether there is an evaluation.

    Returns:
        `dict[str, Any]`: data sets or streams under `train` and, if wanted, `eval`.
    """
    names = {"train": script_args.dataset_train_split}
    if evaluates:
        names["eval"] = script_args.dataset_test_split
    if mixture.datasets:
        if script_args.dataset_name is not None:
            raise ValueError("give --dataset_name or `datasets`, not both")
        mixed = get_dataset(mixture)
        absent = [name for name in names.values() if name not in mixed]
        if absent:
            raise ValueError(
                f"`datasets` has no split {absent[0]!r}, but {', '.join(mixed)}; set `test_split_size` to evaluate on "
                "a part of it, or `eval_strategy: no`"
            )
        return {key: _converted(mixed[name]) for key, name in names.items()}
    if script_args.dataset_name is None:
        raise ValueError("give --dataset_name, a folder, file or name on the hub, or `datasets` in a YAML file")
    return {key: _load_split(script_args, name) for key, name in names.items()}


def _load_split(script_args: SftScriptArguments, split: str) -> Any:
    name, is_here = str(script_args.dataset_name), Path(str(script_args.dataset_name)).expanduser().exists()
    if is_here and script_args.dataset_streaming:
        raise ValueError(
            f"--dataset_streaming is for data sets on the hub; --dataset_name {name} is on this machine, where rows "
            "are read from disk as they are needed. Leave it out."
        )
    if not is_here and script_args.image_root is not None:
        raise ValueError(f"--image_root is for data on this machine, and --dataset_name {name} is not")
    if script_args.dataset_streaming or script_args.dataset_config is not None:
        return _converted(
            load_dataset(name, script_args.dataset_config, split=split, streaming=script_args.dataset_streaming)
        )
    return open_dataset(name, split, image_root=script_args.image_root)


def _converted(rows: Any) -> Any:
    """Rows with `messages`, where they have LLaVA's or ShareGPT's `conversations`."""
    return to_messages(rows) if isinstance(rows, Dataset) else rows


def main() -> int:
    """One process of the training; returns its exit status."""
    # Options that accelerate knows have been taken out of the command line, but not out of the YAML file
    arguments = make_parser("cvreg sft").parse_args_and_config(fail_with_unknown_args=False)
    try:
        run(*arguments)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get(TRACEBACK):
            raise
        if PartialState().is_main_process:
            print(f"cvreg sft: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
