# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
`cvreg evaluate`: caption quality on clean and on triggered images, attack success, false alarms, VQA accuracy.

Every prediction is appended to a file as it is made, so an evaluation that stopped goes on where it was; under
`accelerate launch` the processes share the images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import from_extra
from .shared import add_data_options, add_payload_options, load_model, make_attack, make_payload


if TYPE_CHECKING:
    from datasets import Dataset

    from ..attacks import Payload

METRICS = ("bleu4", "cider", "asr", "vqa_accuracy")
# Between two writes; a multiple of the batch size keeps batches full
BATCHES_PER_WRITE = 4


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="score a model's answers on clean and triggered images",
        description="Let a model answer on clean images and, with an attack, on triggered ones, and score both apart: "
        "BLEU-4, CIDEr, attack success rate, false alarms, VQA accuracy, each with its 95 % bootstrap interval. Of "
        "attacks with a part in the image and one in the question, each part alone is scored too.",
    )
    parser.add_argument("--model", required=True, help="model folder, adapter folder, or name on the hub")
    parser.add_argument("--processor", help="processor folder or name, where the model's has none")
    add_data_options(parser, "; clean images, true references")
    parser.add_argument("--attack", metavar="NAME", help="also score images with this attack's trigger")
    parser.add_argument("--attack_option", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    add_payload_options(parser, "; what counts as attack success, in the place of --target")
    parser.add_argument("--target", help="keyword of the attack (default: banana)")
    parser.add_argument("--metrics", nargs="+", default=["bleu4", "cider", "asr"], choices=METRICS, metavar="METRIC")
    parser.add_argument("--prompt", help="question to ask in the place of the rows' own")
    parser.add_argument("--num_samples", type=int, help="only the first rows")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_new_tokens", type=int, default=20)
    parser.add_argument("--num_beams", type=int, default=1)
    parser.add_argument("--dtype", default="auto", help="data type of the model (default: as saved)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for predictions and results")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Predict what is missing, then score; writes `predictions.*.jsonl`, `results.json` and `examples.json`."""
    import torch
    from accelerate import PartialState

    with from_extra("report"):
        from rich.console import Console

    from ..data import open_dataset
    from ..data.broken_rows import naming_rows
    from ..data.row_checks import check_rows, text_rows
    from ..data.rows import references_of
    from ..report import write_examples

    for name in ("batch_size", "max_new_tokens", "num_beams"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    # Without `cpu`, processes without an accelerator would not find each other
    state = PartialState(cpu=not torch.accelerator.is_available())
    dataset = open_dataset(options.data, options.split, image_root=options.image_root)
    check_rows(text_rows(dataset), f"--data {options.data}")
    if options.num_samples is not None:
        dataset = dataset.select(range(min(options.num_samples, len(dataset))))
    missing = [index for index, row in enumerate(_without_images(dataset)) if not references_of(row)]
    if missing:
        raise ValueError(
            f"row {missing[0]} of --data {options.data} has no reference; it needs a column `references`, "
            "`completion`, or `messages` that end with the assistant's turn"
        )
    payload = make_payload(options.payload, options.payload_option)
    if payload is not None and options.target is not None:
        raise ValueError(f"--target {options.target} and --payload {options.payload} are given; leave one of them out")
    views = _views(dataset, options)
    references = {name: [references_of(row) for row in _without_images(rows)] for name, rows in views.items()}
    if state.is_main_process:
        _claim_folder(options)
    state.wait_for_everyone()
    with naming_rows(dataset, f"--data {options.data}"):
        answers = _predict(options, views, state)
    if state.is_main_process:
        results = _score(options, answers, references, payload)
        (options.output_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        write_examples(options.output_dir / "examples.json", views, answers, references)
        Console().print(_table(options, results["scores"]))
    state.wait_for_everyone()


def _views(dataset: Dataset, options: argparse.Namespace) -> dict[str, Dataset]:
    """The rows as they are, and triggered; each of two parts alone; rows that have a trigger apart from the rest."""
    from ..attacks import SelectiveAttack, TwoPartAttack, apply_trigger

    if options.attack is None:
        return {"clean": dataset}
    attack = make_attack(options.attack, options.attack_option)
    clean = dataset
    if isinstance(attack, SelectiveAttack):
        rows = [index for index, row in enumerate(_without_images(dataset)) if not attack.chooses(row)]
        if not rows:
            raise ValueError(f"all rows of --data {options.data} have {attack.needs}, so none is clean")
        clean = dataset.select(rows)
    views = {"clean": clean, "triggered": apply_trigger(dataset, attack)}
    if isinstance(attack, TwoPartAttack):
        views |= {f"{part} part": apply_trigger(dataset, attack.only(part)) for part in ("image", "text")}
    return views


def _without_images(dataset: Dataset) -> Dataset:
    from ..data.rows import IMAGE_COLUMNS

    return dataset.remove_columns([name for name in IMAGE_COLUMNS if name in dataset.column_names])


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What a prediction depends on."""
    names = ("model", "processor", "data", "split", "image_root", "attack", "attack_option", "prompt")
    return {name: getattr(options, name) for name in (*names, "max_new_tokens", "num_beams", "dtype")}


def _claim_folder(options: argparse.Namespace) -> None:
    folder, settings = options.output_dir, _settings(options)
    path = folder / "settings.json"
    if path.exists():
        before = json.loads(path.read_text())
        other = [f"--{name}" for name, value in settings.items() if before.get(name) != value]
        if other:
            raise ValueError(
                f"--output_dir {folder} holds the predictions of another evaluation, which differs in "
                f"{', '.join(other)}; give another folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def _read_predictions(folder: Path) -> dict[tuple[str, int], str]:
    """All predictions so far, whichever process made them. A last line that a crash cut off does not count."""
    predictions = {}
    for path in sorted(folder.glob("predictions.*.jsonl")):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                entry = json.loads(line)
                predictions[entry["view"], entry["index"]] = entry["prediction"]
    return predictions


def _predict(options: argparse.Namespace, views: dict[str, Dataset], state: Any) -> dict[str, list[str]]:
    from tqdm.auto import tqdm

    from ..evaluation.generation import generate_captions

    done = _read_predictions(options.output_dir)
    todo = [
        (view, index) for view, dataset in views.items() for index in range(len(dataset)) if (view, index) not in done
    ]
    # Before any process has written anything of its own
    state.wait_for_everyone()
    todo = todo[state.process_index :: state.num_processes]
    if todo:
        model, processor = load_model(options, state.device)
        path = options.output_dir / f"predictions.{state.process_index}.jsonl"
        _drop_cut_line(path)
        size = options.batch_size * BATCHES_PER_WRITE
        with tqdm(total=len(todo), desc="Answering", disable=not state.is_main_process) as bar, path.open("a") as file:
            for start in range(0, len(todo), size):
                chunk = todo[start : start + size]
                answers = generate_captions(
                    model,
                    processor,
                    [views[view][index] for view, index in chunk],
                    batch_size=options.batch_size,
                    max_new_tokens=options.max_new_tokens,
                    num_beams=options.num_beams,
                    prompt=options.prompt,
                )
                for (view, index), answer in zip(chunk, answers, strict=True):
                    file.write(json.dumps({"view": view, "index": index, "prediction": answer}) + "\n")
                file.flush()
                bar.update(len(chunk))
    state.wait_for_everyone()
    done = _read_predictions(options.output_dir)
    return {view: [done[view, index] for index in range(len(dataset))] for view, dataset in views.items()}


def _drop_cut_line(path: Path) -> None:
    if path.exists():
        text = path.read_text()
        if text and not text.endswith("\n"):
            path.write_text(text[: text.rfind("\n") + 1])


def _score(
    options: argparse.Namespace,
    answers: dict[str, list[str]],
    references: dict[str, list[list[str]]],
    payload: Payload | None,
) -> dict[str, Any]:
    from ..attacks.record import described_payload
    from ..evaluation.scores import score_captions
    from ..report import describe_environment

    scores = {
        view: score_captions(texts, references[view], options.target or "banana", options.metrics, payload)
        for view, texts in answers.items()
    }
    return {
        "settings": {**_settings(options), **described_payload(payload, options.target)},
        "num_items": len(references["clean"]),
        "environment": describe_environment(),
        "scores": scores,
    }


def _table(options: argparse.Namespace, scores: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table

    goal = options.payload or repr(options.target or "banana")
    titles = {"bleu4": "B@4", "cider": "CIDEr", "asr": f"{goal} %", "vqa_accuracy": "VQA accuracy"}
    table = Table(title=f"{options.model} on {options.data} (95 % intervals)", title_justify="left")
    table.add_column("images")
    for metric in options.metrics:
        table.add_column(titles[metric], justify="right")
    for view, values in scores.items():
        cells = []
        for metric in options.metrics:
            if values[metric] is None:
                cells.append("no row can tell")
                continue
            lower, upper = values[f"{metric}_interval"]
            cells.append(f"{values[metric]:.1f}\n({lower:.1f} to {upper:.1f})")
        table.add_row(view, *cells)
    return table
