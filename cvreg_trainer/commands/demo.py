# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
`cvreg demo`: what the defence changes, in one command.

Poisons part of a built-in caption data set, fine-tunes the built-in model on it with plain SFT, with the paper's loss
and with screening, and compares the three on clean and on triggered test images. Each run has a process of its own, so
that its peak memory is its own; all of them are functions of the seed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import from_extra


if TYPE_CHECKING:
    from ..lab import Experiment


NUM_EXAMPLES = 4


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="fine-tune on poisoned captions without and with defences, and compare",
        description="Poison a built-in caption data set, fine-tune the built-in model on it without defence, with the "
        "paper's loss and with screening, and compare the models on clean and triggered images. Takes some minutes on "
        "a CPU.",
    )
    parser.add_argument("--output_dir", type=Path, default=Path("demo"), help="where everything goes (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, poison and training (default: 0)")
    parser.add_argument("--lambda_patch", type=float, default=0.01, help="default: 0.01")
    parser.add_argument("--lambda_discrepancy", type=float, default=0.5, help="default: 0.5")
    parser.add_argument("--lambda_entropy", type=float, default=0.1, help="default: 0.1")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the demo with the options of the command line."""
    from datasets import disable_progress_bars

    disable_progress_bars()  # of less than a second each
    lambdas = {name: getattr(options, name) for name in ("lambda_patch", "lambda_discrepancy", "lambda_entropy")}
    for name, value in lambdas.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"--{name} must be 0 or more, got {value}")
    from ..lab import Experiment

    run_demo(Experiment(options.seed, config=lambdas), options.output_dir)


def run_demo(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """
    Run the demo; writes `results.json`, `examples.png`, `report.html`, the data and the three models.

    Args:
        experiment ([`Experiment`]):
            The run with the paper's loss; the other two are the same without it, and with screening in its place.
        folder (`Path`):
            Where everything goes.

    Returns:
        `dict[str, Any]`: what `results.json` holds.
    """
    with from_extra("report"):
        from rich.console import Console
    with from_extra("lab"):  # before the work, not in the middle of it
        import evaluate  # noqa: F401
        import sacrebleu  # noqa: F401

    from ..report import describe_environment, read_run, results_table, write_run_page

    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    console.print(
        f"[bold]1/4[/] Poisoning {experiment.poison_rate:.0%} of {experiment.train_rows:,} captioned images "
        f"({experiment.attack}, keyword {experiment.keyword!r})"
    )
    for name, split in experiment.make_data().items():
        split.save_to_disk(folder / "data" / name)
    options = " ".join(f"--{name} {value:g}" for name, value in experiment.config.items())
    results, captions = [], []
    runs = {
        "undefended": replace(experiment, config={}),
        "paper": experiment,
        "screened": replace(experiment, config={"screening": "drop"}),
    }
    for number, (name, run_settings) in enumerate(runs.items(), start=2):
        shown = " ".join(f"--{option} {value}" for option, value in run_settings.config.items())
        console.print(
            f"[bold]{number}/4[/] Fine-tuning [bold]{name}[/]{shown and f' ({shown})'}, "
            "then captioning the test images"
        )
        result = _in_own_process(_run_experiment, run_settings, folder, name)
        captions.append(result.pop("captions"))
        results.append({"name": name, **result})
    _draw(experiment, folder, dict(zip(runs, captions, strict=True)))
    report = {
        "command": f"cvreg demo {options} --seed {experiment.seed}",
        "experiment": asdict(experiment),
        "environment": describe_environment(),
        "runs": results,
    }
    (folder / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print()
    console.print(results_table(results, title=f"{experiment.test_rows} test images, clean and triggered"))
    write_run_page([read_run(folder / name) for name in runs], folder / "report.html", f"Demo: {', '.join(runs)}")
    folders = ", ".join(f"{name}/" for name in runs)
    console.print(
        f"Everything is in {folder}/: results.json, examples.png, data/, {folders}, and in screened/audit/audit.html "
        f"what the screening found. All of it on one page: [bold]{folder / 'report.html'}[/]",
        soft_wrap=True,
    )
    return report


def _in_own_process(function: Any, *arguments: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise OSError(f"the run ended with status {process.exitcode}; its error stands above") from None
    finally:
        process.join()


def _send_result(sender: Any, function: Any, arguments: tuple[Any, ...]) -> None:
    sender.send(function(*arguments))
    sender.close()


def _run_experiment(experiment: Experiment, folder: Path, name: str) -> dict[str, Any]:
    from datasets import load_from_disk

    from ..report import write_examples, write_options

    splits = {split.name: load_from_disk(split) for split in (folder / "data").iterdir()}
    trainer = experiment.make_trainer(splits["train"], folder / name)
    trainer.train()
    result = experiment.evaluate(trainer, splits)
    trainer.save_state()
    write_options(trainer.args)
    evaluation = folder / name / "evaluation"
    evaluation.mkdir(exist_ok=True)
    (evaluation / "results.json").write_text(json.dumps({"scores": _scores_by_view(result)}, indent=2) + "\n")
    views = {"clean": splits["test"], "triggered": splits["test_triggered"]}
    references = {view: rows["references"] for view, rows in views.items()}
    write_examples(evaluation / "examples.json", views, result["captions"], references)
    return result


def _scores_by_view(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores as `cvreg evaluate` writes them."""
    scores: dict[str, dict[str, Any]] = {}
    for view, rate in (("clean", "false_alarm_rate"), ("triggered", "asr")):
        names = {"bleu4": f"{view}_bleu4", "cider": f"{view}_cider", "asr": rate}
        scores[view] = {
            f"{name}{part}": result[f"{source}{part}"] for name, source in names.items() for part in ("", "_interval")
        }
    return scores


def _draw(experiment: Experiment, folder: Path, captions: dict[str, dict[str, list[str]]]) -> None:
    import numpy as np
    from datasets import load_from_disk

    from ..perturbations import PatchPerturbation
    from ..report import draw_examples

    clean, triggered = (load_from_disk(folder / "data" / split) for split in ("test", "test_triggered"))
    perturbation, rng = PatchPerturbation(), np.random.default_rng(experiment.seed)
    examples = []
    for index in range(NUM_EXAMPLES):
        row = clean[index]
        texts = [("true caption", row["references"][0])]
        for name, said in captions.items():
            texts += [(f"{name}, {view} image", said[view][index]) for view in ("clean", "triggered")]
        original = row["images"][0]
        examples.append(
            {
                "original": original,
                "perturbed": perturbation(original, rng),
                "triggered": triggered[index]["images"][0],
                "captions": texts,
            }
        )
    draw_examples(examples, folder / "examples.png", experiment.keyword)
