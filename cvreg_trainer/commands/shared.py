# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset

    from ..attacks import Attack, Payload

# ATTACKS and PAYLOADS are slow to import
ATTACK_NAMES = (
    "badnets", "blended", "low_frequency", "wanet", "input_aware", "dual_key", "sig", "ftrojan", "optimized_patch",
    "badnets_t", "badnets_mt", "add_sent", "badnets_mm", "semantic", "no_trigger",
)  # fmt: skip
PAYLOAD_NAMES = (
    "keyword", "refusal", "injection", "substitution", "relation_swap", "flood", "answers", "several",
)  # fmt: skip


def add_data_options(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Add `--data`, `--split` and `--image_root`; `note` is put behind what `--data` says."""
    parser.add_argument(
        "--data",
        required=True,
        help="folder written by save_to_disk, .parquet, .json(l) or .csv file (also LLaVA's and ShareGPT's formats), "
        f"folder of such files or of images, or name on the hub{note}",
    )
    parser.add_argument("--split", help="split to take, where there are several")
    parser.add_argument(
        "--image_root",
        metavar="FOLDER",
        help="folder that image paths are relative to, and that images may lie in (default: the data's own folder)",
    )


def open_data(options: argparse.Namespace, cache_dir: Any = None) -> Dataset:
    """
    The data set of these options.

    Raises:
        `OSError` or `ValueError`: see [`open_dataset`]; also if its rows cannot be trained on.
    """
    from ..data import open_dataset
    from ..data.row_checks import check_columns, check_rows, text_rows

    dataset = open_dataset(options.data, options.split, cache_dir=cache_dir, image_root=options.image_root)
    source = f"--data {options.data}"
    check_columns(dataset.column_names, source)
    check_rows(text_rows(dataset), source)
    return dataset


def make_attack(name: str, texts: list[str]) -> Attack:
    """The attack of `--attack`, with the parameters of `--attack_option`."""
    from ..attacks import ATTACKS

    return _make(ATTACKS, "attack", name, texts)


def add_payload_options(parser: argparse.ArgumentParser, note: str) -> None:
    """Add `--payload` and `--payload_option`; `note` is put behind what `--payload` says."""
    parser.add_argument("--payload", metavar="NAME", help=f"one of {', '.join(PAYLOAD_NAMES)}{note}")
    parser.add_argument(
        "--payload_option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="parameter of the payload, such as paraphrases=true; parts of a list are parted by |; may be repeated",
    )


def make_payload(name: str | None, texts: list[str]) -> Payload | None:
    """The payload of `--payload`, with the parameters of `--payload_option`; `None` if there is none."""
    from ..attacks import PAYLOADS

    if name is None:
        if texts:
            raise ValueError(f"--payload_option {texts[0]}: name the payload that it belongs to with --payload")
        return None
    return _make(PAYLOADS, "payload", name, texts)


def _make(kinds: Mapping[str, Any], option: str, name: str, texts: list[str]) -> Any:
    if name not in kinds:
        raise ValueError(f"--{option} {name} is unknown; use one of {', '.join(kinds)}")
    defaults = {
        field.name: field.default
        for field in fields(kinds[name])
        if isinstance(field.default, (str, int, float, Path)) or _is_texts(field.default)
    }
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in defaults:
            keys = ", ".join(defaults) or "none, it has no parameters"
            raise ValueError(f"--{option}_option {text}: expected KEY=VALUE with a key of {name}: {keys}")
        values[key] = _parse(f"--{option}_option {text}", value, defaults[key])
    return kinds[name](**values)


def _is_texts(default: Any) -> bool:
    return isinstance(default, tuple) and all(isinstance(part, str) for part in default)


def _parse(text: str, value: str, default: Any) -> Any:
    """The value as the type that the option has by default."""
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{text}: expected true or false")
        return value.lower() == "true"
    if isinstance(default, (int, float)):
        try:
            return type(default)(value)
        except ValueError:
            kind = "a whole number" if isinstance(default, int) else "a number"
            raise ValueError(f"{text}: expected {kind}, such as {default:.4g}") from None
    return tuple(value.split("|")) if isinstance(default, tuple) else value


def load_model(options: argparse.Namespace, device: Any) -> tuple[Any, Any]:
    """
    The model, or an adapter on the base it was trained on, and the processor.

    Raises:
        `OSError` or `ValueError`: if there is none; transformers' own error does not always name it.
    """
    try:
        return _load_model(options, device)
    except (OSError, ValueError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError  # others take more than a text
        raise kind(f"--model {options.model}: {error}") from error


def _load_model(options: argparse.Namespace, device: Any) -> tuple[Any, Any]:
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from ..models import flamingo  # noqa: F401  registers Flamingo with the Auto classes

    kwargs = {"dtype": options.dtype, "trust_remote_code": options.trust_remote_code}
    folder = Path(options.model)
    is_adapter = (folder / "adapter_config.json").is_file()
    base = PeftConfig.from_pretrained(options.model).base_model_name_or_path if is_adapter else options.model
    if not base:
        raise ValueError("the adapter does not say which base model it belongs to")
    model: Any = AutoModelForImageTextToText.from_pretrained(base, **kwargs)
    if is_adapter:
        model = PeftModel.from_pretrained(model, options.model)
    has_processor = any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json"))
    source = options.processor or (options.model if has_processor or not is_adapter else base)
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=options.trust_remote_code)
    return model.to(device), processor


@contextmanager
def no_cache_files() -> Iterator[None]:
    """`datasets` would otherwise write its intermediate results beside the user's data."""
    import datasets

    enabled = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_caching()
