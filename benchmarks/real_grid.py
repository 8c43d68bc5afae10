# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Detectors on third-party pictures and the captioner of pretrained parts: which rows do they find, and at what price?

    python benchmarks/real_grid.py --model captioner --packages packages --suite attacks   # triggers x payloads, 5 %
    python benchmarks/real_grid.py --model captioner --packages packages --suite clean     # all kinds of rows
    python benchmarks/real_grid.py --model captioner --packages packages --suite controls  # honest noise, no trigger
    python benchmarks/real_grid.py ... --detectors screening  # the package's own; left out by default

docs/real-parts.md says how to make both folders. One JSON row per cell and detector is appended to `--output`; what is
there already is not done again. Detectors that want a model which was trained on the rows share one fine-tune on them.
Read a recall beside `asr` and `false_alarm_rate`, of that fine-tune on held-out rows: where an attack does not take
hold, a detector may still find its responses, but there is nothing to defend.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from grid_runs import is_wanted
from peft import LoraConfig
from real_cells import attack_success, cells, fine_tune, make_cell, pictures_to_poison
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer
from cvreg_trainer.lab.baselines import DETECTORS, Detection, Look, Reading, read_rows
from cvreg_trainer.report import describe_environment
from cvreg_trainer.screening.stop_after_screening import StopAfterScreening
from cvreg_trainer.start_report import StartReportCallback


SCREENING = "screening"
LANGUAGE_LAYERS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


class TimedLook(Look):
    """A look that knows how long its pass took, and whether it was asked for since `used` was last set back."""

    seconds, used = 0.0, False

    @property
    def reading(self) -> Reading:  # type: ignore[override]
        """The pass, made once."""
        self.used = True
        if not self.seconds:
            start = time.perf_counter()
            self.kept = read_rows(self.model, self.processor, self.rows, self.batch_size)
            self.seconds = time.perf_counter() - start
        return self.kept

    def detect(self, name: str, marked: np.ndarray, before: float = 0.0) -> dict[str, Any]:
        """What a detector says, and the seconds that it would take alone, those `before` included."""
        self.used, made, start = False, self.seconds, time.perf_counter()
        detection = DETECTORS[name].detect(self)
        seconds = before + time.perf_counter() - start + (made if self.used else 0.0)
        return {"detector": name, **judge(detection, marked), "seconds": round(seconds, 1)}


def load_captioner(folder: Path) -> Any:
    """The captioner in bfloat16."""
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()


def make_trainer(
    folder: str,
    model: Any,
    processor: Any,
    rows: Dataset,
    seed: int,
    *,
    trains_projector: bool = False,
    **options: Any,
) -> CrossViewDefenseTrainer:
    """Adapters of rank 16 on the language model, three epochs; `options` of the configuration change that."""
    config = CrossViewDefenseConfig(
        folder,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        seed=seed,
        use_cpu=not torch.accelerator.is_available(),
        bf16=False,  # the model is in bfloat16 itself
        activation_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **{"num_train_epochs": 3, "learning_rate": 2e-4, **options},
    )
    projector = ["multi_modal_projector"] if trains_projector else None
    adapters = LoraConfig(
        r=16, lora_alpha=32, target_modules=LANGUAGE_LAYERS, modules_to_save=projector, task_type="CAUSAL_LM"
    )
    trainer = CrossViewDefenseTrainer(
        model=model, args=config, train_dataset=rows, processing_class=processor, peft_config=adapters
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(StartReportCallback)
    return trainer


def screened_trainer(model: Any, processor: Any, rows: Dataset, seed: int) -> CrossViewDefenseTrainer:
    """A trainer that has screened the rows with the settings of `cvreg audit`, and stopped at the cut."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, model, processor, rows, seed)
        trainer.add_callback(StopAfterScreening(trainer._screen))
        trainer.train()
    return trainer


def screening_flags(model: Any, processor: Any, rows: Dataset, seed: int) -> Detection:
    """The package's screening: suspicion and flags of all rows."""
    screen = screened_trainer(model, processor, rows, seed)._screen.screen
    return Detection(screen.suspicion, screen.is_flagged)


def judge(detection: Detection, marked: np.ndarray) -> dict[str, Any]:
    """How a detection compares with the truth."""
    scores, flagged = detection
    clean = scores[~marked]
    result: dict[str, Any] = {"num_rows": len(marked), "num_poisoned": int(marked.sum())}
    if marked.any():
        # As many clean rows as may be above the threshold; rows that tie with the next one are not counted as found
        threshold = np.sort(clean)[::-1][int(0.01 * len(clean))]
        result["auroc"] = float(roc_auc_score(marked, scores))
        result["found_at_1_percent"] = int((scores[marked] > threshold).sum())
    if flagged is not None:
        result |= {"found": int(flagged[marked].sum()), "clean_flagged": int(flagged[~marked].sum())}
    return result


def run_cell(
    options: argparse.Namespace, cell: dict[str, Any], seed: int, names: list[str]
) -> Iterator[dict[str, Any]]:
    """The rows of one cell, as they come."""
    rows, marked, held_out = make_cell(cell, options.pictures, seed, options.rows, options.poison_rate)
    processor = AutoProcessor.from_pretrained(options.model)

    def load() -> Any:
        return load_captioner(options.model)

    if SCREENING in names:
        start = time.perf_counter()
        detection = screening_flags(load(), processor, rows, seed)
        seconds = round(time.perf_counter() - start, 1)
        yield {"detector": SCREENING, **judge(detection, marked), "seconds": seconds}
    rivals = [name for name in names if name != SCREENING]
    if not rivals:
        return
    look = TimedLook(load(), processor, rows)
    for name in rivals:
        if not DETECTORS[name].after_training:
            yield look.detect(name, marked)
    if after := [name for name in rivals if DETECTORS[name].after_training]:
        start = time.perf_counter()
        fine_tune(look.model, processor, rows, options.epochs, seed)
        trained = time.perf_counter() - start
        success = attack_success(cell, look.model, processor, held_out) if held_out else {}
        look = TimedLook(look.model, processor, rows)
        for name in after:
            yield {**look.detect(name, marked, trained), **learns(name, options.epochs), **success}


def learns(name: str, epochs: int) -> dict[str, Any]:
    """How long a detector's model is trained on the rows, where it is."""
    return {"epochs": epochs} if name in DETECTORS and DETECTORS[name].after_training else {}


def command(options: argparse.Namespace) -> str:
    """What was run, without the machine's own folders."""
    names = ("suite", "rows", "poison_rate", "epochs")
    parts = [f"--{name} {getattr(options, name)}" for name in names]
    lists = [f"--{name} {' '.join(map(str, getattr(options, name)))}" for name in ("seeds", "only", "detectors")]
    return " ".join(["python benchmarks/real_grid.py --model captioner --packages packages", *parts, *lists])


def identity(row: dict[str, Any]) -> str:
    """What makes two rows the same."""
    names = ("trigger", "payload", "kind", "control", "seed", "detector", "planned_rows", "poison_rate", "epochs")
    return json.dumps({name: row.get(name) for name in names})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the captioner")
    parser.add_argument("--packages", type=Path, required=True, help="folder of the pictures' packages")
    parser.add_argument("--suite", choices=("attacks", "clean", "controls"), default="attacks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--detectors", nargs="+", choices=(SCREENING, *DETECTORS), default=list(DETECTORS))
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME=VALUE,...", help="values that a cell may have")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--poison_rate", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=2, help="of the fine-tune for detectors that want one")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/real_grid.jsonl"))
    options = parser.parse_args()
    lines = options.output.read_text().splitlines() if options.output.exists() else []
    done = {identity(json.loads(line)) for line in lines}
    options.pictures = pictures_to_poison(options.packages)
    for seed in options.seeds:
        for cell in cells(options.suite):
            if not is_wanted(cell, options.only):
                continue
            settings = {"suite": options.suite, **cell, "seed": seed, "planned_rows": options.rows}
            settings["poison_rate"] = 0.0 if options.suite == "clean" else options.poison_rate
            names = [
                name
                for name in options.detectors
                if identity({**settings, **learns(name, options.epochs), "detector": name}) not in done
            ]
            if not names:
                continue
            facts = {"command": command(options), "environment": describe_environment()}
            for row in run_cell(options, cell, seed, names):
                with options.output.open("a") as file:
                    file.write(json.dumps({**settings, **row, **facts}) + "\n")
                shown = {name: value for name, value in row.items() if value is not None}
                print(" ".join(map(str, cell.values())), shown, flush=True)


if __name__ == "__main__":
    main()
