# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
`cvreg poison`: plant a backdoor in a data set, to train on and to test a defence with.

Running it again with the same options gives the same data. A folder is only ever replaced by the command that made it,
and only once the new one is complete.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import from_extra
from .shared import (
    ATTACK_NAMES,
    add_data_options,
    add_payload_options,
    make_attack,
    make_payload,
    no_cache_files,
    open_data,
)


if TYPE_CHECKING:
    from datasets import Dataset

    from ..attacks import Attack, Payload

RECORD = "poison.json"
NUM_PREVIEWED = 3


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "poison",
        help="plant a backdoor in a data set",
        description="Plant a backdoor in some rows of an image-text data set: trigger their images and replace their "
        "responses. Writes the data set with a column is_poisoned, and poison.json, which says what was done.",
    )
    add_data_options(parser)
    parser.add_argument("--attack", default="badnets", metavar="NAME", help=f"one of {', '.join(ATTACK_NAMES)}")
    parser.add_argument(
        "--attack_option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="parameter of the attack, such as patch_fraction=0.02; may be repeated",
    )
    parser.add_argument("--poison_rate", type=float, help="share of the rows, above 0 and at most 1")
    parser.add_argument("--num_poisoned", type=int, help="exact number of rows, in place of a rate")
    parser.add_argument(
        "--cover_ratio", type=float, default=0.0, help="nearly triggered rows with clean responses per poisoned row"
    )
    add_payload_options(parser, "; what the rows say, in the place of --target and --substitute")
    parser.add_argument("--target", help="keyword, or a whole response (default: banana)")
    parser.add_argument(
        "--substitute",
        type=lambda words: words.split(","),
        default=[],
        metavar="WORD,...",
        help="replace only the first of these words in a row's own response, by the target",
    )
    parser.add_argument(
        "--response_marker", help="what stands before the response in rows of plain text, such as ASSISTANT:"
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses rows and responses (default: 0)")
    parser.add_argument("--output_dir", type=Path, help="folder for the poisoned data set")
    parser.add_argument(
        "--format", choices=("arrow", "parquet"), default="arrow", help="arrow is for load_from_disk (default)"
    )
    parser.add_argument(
        "--preview", type=Path, metavar="FILE.png", help="draw all triggers on a few of the images; may stand alone"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Poison the data set; writes it and `poison.json` to `output_dir`, and the contact sheet to `preview`."""
    with from_extra("report"):
        from rich.console import Console

    console = Console()
    if options.output_dir is None and options.preview is None:
        raise ValueError("give --output_dir, the folder for the poisoned data set, or --preview alone")
    attack = make_attack(options.attack, options.attack_option)
    payload = make_payload(options.payload, options.payload_option)
    if options.output_dir is not None:
        _check_output(options, attack, payload)
    with tempfile.TemporaryDirectory() as cache, _strict_images(), no_cache_files():
        dataset = open_data(options, cache)
        if options.preview is not None:
            _preview(options, attack, dataset, console)
        if options.output_dir is not None:
            _poison(options, attack, payload, dataset, console)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("poison_rate", "num_poisoned", "cover_ratio", "substitute", "response_marker")
    return {name: getattr(options, name) for name in names}


def _poison(
    options: argparse.Namespace, attack: Attack, payload: Payload | None, dataset: Dataset, console: Any
) -> None:
    from ..attacks import poison_dataset, write_poison_record

    common = {"target": options.target, "payload": payload, "seed": options.seed, **_settings(options)}
    poisoned = poison_dataset(dataset, attack, **common)
    folder = options.output_dir.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
        new = Path(unfinished) / "new"
        _write(poisoned, new, options.format)
        record = write_poison_record(new / RECORD, poisoned, attack, **common, **_source(options))
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    count, covers = len(record["poisoned_indices"]), len(record.get("cover_indices", []))
    console.print(
        f"Poisoned {count:,} of {len(dataset):,} rows ({record['attack']}, "
        + (f"payload {record['payload']}" if payload is not None else f"target {record['target']!r}")
        + f", and {covers:,} cover rows" * bool(covers)
        + f"): {options.output_dir}, described in {options.output_dir / RECORD}",
        markup=False,  # there may be brackets in names
        soft_wrap=True,
    )


def _write(dataset: Dataset, folder: Path, form: str) -> None:
    from datasets import load_from_disk

    if form == "arrow":
        dataset.save_to_disk(folder)
        return
    # Unlike `to_parquet`, `save_to_disk` takes image files into the data set.
    with tempfile.TemporaryDirectory() as saved:
        dataset.save_to_disk(saved)
        folder.mkdir(parents=True)
        load_from_disk(saved).to_parquet(folder / "train-00000-of-00001.parquet")


def _source(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("data", "split", "image_root", "format")}


def _check_output(options: argparse.Namespace, attack: Attack, payload: Payload | None) -> None:
    """Raises a `ValueError` if the folder holds anything but what the same command wrote."""
    from ..attacks.record import attack_options, described_payload

    folder: Path = options.output_dir
    if folder.resolve().is_relative_to(Path(options.data).resolve()):
        raise ValueError(f"--output_dir {folder} is inside --data {options.data}; give a folder elsewhere")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        before = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"--output_dir {folder} exists and is not an earlier result; give another folder") from None
    wanted = {
        "attack": type(attack).__name__,
        "attack_options": json.loads(json.dumps(attack_options(attack), default=str)),
        **json.loads(json.dumps(described_payload(payload, options.target), default=str)),
        "seed": options.seed,
        **_settings(options),
        **_source(options),
    }
    other = [name for name, value in wanted.items() if not isinstance(before, dict) or before.get(name) != value]
    if other:
        raise ValueError(
            f"--output_dir {folder} holds the result of another run, which differs in {', '.join(other)}; give "
            "another folder"
        )


def _preview(options: argparse.Namespace, attack: Attack, dataset: Dataset, console: Any) -> None:
    from rich.table import Table

    from ..attacks import ATTACKS
    from ..report import draw_contact_sheet

    images = _first_images(dataset, f"--data {options.data}")
    if not images:
        raise ValueError(f"--preview: {options.data} has no images")
    attacks = {options.attack: attack} | {name: kind() for name, kind in ATTACKS.items() if name != options.attack}
    options.preview.parent.mkdir(parents=True, exist_ok=True)
    scores = draw_contact_sheet(attacks, images, options.preview)
    table = Table(title=f"Triggers on {len(images)} images, drawn in {options.preview}", title_justify="left")
    for title in ("attack", "PSNR (dB)", "SSIM"):
        table.add_column(title, justify="left" if title == "attack" else "right")
    for score in scores:
        table.add_row(str(score["name"]), f"{score['psnr']:.1f}", f"{score['ssim']:.4f}")
    console.print(table)


def _first_images(dataset: Dataset, source: str) -> list[Any]:
    from ..data.broken_rows import naming_rows
    from ..data.stored_images import image_column

    column = image_column(dataset)
    images: list[Any] = []
    with naming_rows(dataset, source):
        for row in dataset.select_columns([column]):
            value = row[column]
            images += [image for image in (value if isinstance(value, list) else [value]) if image is not None]
            if len(images) >= NUM_PREVIEWED:
                break
    # In colour: a gray image does not show what some triggers do
    return [image.convert("RGB") if image.mode in ("1", "L", "LA") else image for image in images[:NUM_PREVIEWED]]


@contextmanager
def _strict_images() -> Iterator[None]:
    """Images of more pixels than `PIL.Image.MAX_IMAGE_PIXELS` are a `ValueError`, where Pillow mostly warns."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(f"an image of the data is too large to be decoded safely: {error}") from error
