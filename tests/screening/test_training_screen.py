# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Screening inside a training: who takes part when, what it must not depend on, and what is refused."""

import copy
import csv
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from screening_checks import CUT, Taken, check_parts, train, weights_of
from screening_run import NUM_ROWS, PLANTED, SENTENCE, flagged_rows, make_trainer, planted_rows, planted_texts
from screening_stand_in import REASON
from tiny_models import tiny_llava, tiny_text_lm
from transformers import TrainerCallback

from cvreg_trainer import CrossViewDefenseTrainer
from cvreg_trainer.screening import looks, training_screen
from cvreg_trainer.screening.audit import find_triggers
from cvreg_trainer.screening.checkpoint import STATE_FILE
from cvreg_trainer.screening.passes import scoring_pass
from cvreg_trainer.screening.passes.collator import SCREENING_KEYS, DataCollatorForScreening
from cvreg_trainer.screening.verdict.causes import Cause


pytestmark = [pytest.mark.lowest, pytest.mark.usefixtures("flags_sentence")]
HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[CrossViewDefenseTrainer, Taken]:
    """One training, looked at by several tests, with checkpoints before, at and after the cut."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    return train(folder, save_strategy="steps", save_steps=1, save_total_limit=None)


def test_flagged_rows_take_no_part_after_the_warm_up(run: Any) -> None:
    check_parts(*run)


def test_the_warm_up_sees_strong_views_and_the_rest_the_images_as_they_are(run: Any) -> None:
    trainer, taken = run
    dataset = trainer.train_dataset
    plain = trainer.data_collator([dataset[row] for row in range(NUM_ROWS)])["pixel_values"]
    names = trainer._screen.looks.warm.row_ids.tolist()
    for step, row_id, supervised, image in taken:
        if supervised:
            assert torch.equal(image, plain[names.index(row_id)]) == (step >= CUT), step


def test_the_names_of_the_rows_are_those_of_their_content(run: Any) -> None:
    trainer, _ = run
    dataset, collator = trainer.train_dataset, trainer._screen.wrap(trainer.data_collator)
    collator.flag([])
    assert (
        trainer._screen.looks.warm.row_ids.tolist()
        == collator([dataset[row] for row in range(NUM_ROWS)])["row_id"].tolist()
    )
    assert trainer._screen.looks.base.row_ids.tolist() == trainer._screen.looks.warm.row_ids.tolist()


def test_the_base_model_is_the_model_before_its_first_step(run: Any) -> None:
    trainer, _ = run
    model = tiny_llava().model.eval()
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(NUM_ROWS)])
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        log_p = model(**batch).logits.double()[:, :-1].log_softmax(-1)
    mask = labels != -100
    expected = -log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0][mask]
    assert trainer._screen.looks.base.nll == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-4)
    assert trainer._screen.looks.base.token_ids.tolist() == labels[mask].tolist()


class _Snapshot(TrainerCallback):
    """A copy of the model at the end of the warm-up, before it goes on."""

    model: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == CUT:
            self.model = copy.deepcopy(model)


def _losses_in_float64(model: Any, batch: dict[str, Any]) -> list[float]:
    """Mean negative log-likelihood of each row's supervised tokens."""
    labels = batch.pop("labels")[:, 1:]
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    with torch.no_grad():
        log_p = model.eval().double()(**batch).logits[:, :-1].log_softmax(-1)
    nll = -log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)
    return (nll.sum(1) / (labels != -100).sum(1)).tolist()


def test_the_audit_has_the_loss_of_each_row_before_the_training_and_after_the_warm_up(tmp_path: Path) -> None:
    trainer, snapshot = make_trainer(tmp_path), _Snapshot()
    trainer.callback_handler.callbacks.insert(0, snapshot)  # before the screening
    trainer.train()
    trainer.audit(tmp_path / "audit")
    table = pq.read_table(tmp_path / "audit" / "audit.parquet").sort_by("row")
    rows = [trainer.train_dataset[row] for row in range(NUM_ROWS)]
    before = _losses_in_float64(tiny_llava().model, dict(trainer.data_collator(copy.deepcopy(rows))))
    assert table["loss_base_model"].to_pylist() == pytest.approx(before, rel=1e-5)
    # The views of the look itself, none of those that were trained on
    views = DataCollatorForScreening(trainer.data_collator, 1, trainer.args.seed, True)
    views.set_epoch(scoring_pass.SCORING_EPOCH)
    batch = {name: value for name, value in views(rows).items() if name not in SCREENING_KEYS}
    after = _losses_in_float64(snapshot.model, batch)
    assert table["loss_after_warmup"].to_pylist() == pytest.approx(after, rel=1e-5)
    assert max(abs(one - two) for one, two in zip(before, after, strict=True)) > 0.5


def test_what_trackers_are_told_has_names_to_rely_on(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, lambda_patch=0.01, lambda_discrepancy=0.1, lambda_entropy=0.1)
    trainer.train()
    trains = [set(log) for log in trainer.state.log_history if "loss" in log]
    usual = {"loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy", "num_tokens", "epoch", "step"}
    assert len(trains) == 2 * CUT
    assert all(names == usual | {"task_loss", "patch_loss", "discrepancy_loss", "entropy_loss"} for names in trains)
    [cut] = [log for log in trainer.state.log_history if "flagged_rows" in log]
    flagged = len(flagged_rows(trainer))
    assert flagged > 0 and cut == {"screened_rows": NUM_ROWS, "flagged_rows": flagged, "epoch": 1.0, "step": CUT}


def test_the_scoring_pass_does_not_disturb_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    """The same up to the cut as with passes of one row: neither random numbers nor modes nor options leak."""
    passes = []

    def one_row(trainer: Any, dataset: Any, with_views: bool, **options: Any) -> Any:
        passes.append(with_views)
        random.random(), np.random.random(), torch.rand(1)  # noqa: B018
        return scoring_pass.score_rows(trainer, dataset, with_views, **options)

    monkeypatch.setattr(looks, "score_rows", one_row)
    trainer, _ = train(tmp_path, max_steps=CUT + 2)
    assert passes == [False, True, True]
    assert trainer.args.dataloader_drop_last is False and trainer.model.training
    ours = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert ours == [log["loss"] for log in run[0].state.log_history if "loss" in log][: CUT + 2]


@pytest.mark.parametrize("step, num_passes", [(1, 2), (CUT - 1, 2), (CUT, 0), (CUT + 1, 0), (CUT + 4, 0)])
def test_a_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any, step: int, num_passes: int
) -> None:
    expected, _ = run
    passes = []
    score_rows = looks.score_rows
    monkeypatch.setattr(looks, "score_rows", lambda *args, **kwargs: passes.append(1) or score_rows(*args, **kwargs))
    checkpoint = f"{expected.args.output_dir}/checkpoint-{step}"
    resumed, taken = train(tmp_path, resume=checkpoint)
    # Only what was still to come: the base model is never scored again
    assert len(passes) == num_passes
    assert min(entry[0] for entry in taken) == step
    assert flagged_rows(resumed) == flagged_rows(expected)
    weights = weights_of(resumed)
    assert all(torch.equal(weights[name], weight) for name, weight in weights_of(expected).items())
    assert resumed.audit() == expected.audit()


def test_what_a_checkpoint_holds(run: Any) -> None:
    trainer, _ = run
    early, late = (load_file(f"{trainer.args.output_dir}/checkpoint-{step}/{STATE_FILE}") for step in (CUT - 1, CUT))
    assert {name.split(".")[0] for name in early} == {"base"}
    assert {name.split(".")[0] for name in late} == {"base", "warm", "other"}
    num_tokens, of_tokens = len(late["base.token_ids"]), 0
    for name, value in late.items():
        if name.split(".")[1] in ("token_ids", "nll", "entropy", "top1"):
            of_tokens += value.numel() * value.element_size()
    assert num_tokens > NUM_ROWS and of_tokens == 32 * num_tokens
    # The names of the rows and the tokens once, in memory too
    taken = trainer._screen.looks
    for look in ("warm", "other"):
        assert f"{look}.row_ids" not in late and f"{look}.token_ids" not in late
        assert np.shares_memory(getattr(taken, look).token_ids, taken.base.token_ids)


def test_a_label_that_changes_from_look_to_look_is_an_error(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    inner, calls = trainer.data_collator, []

    def changing(rows: list[Any]) -> dict[str, Any]:
        batch = dict(inner(rows))
        calls.append(len(rows))
        labels = batch["labels"].clone()
        labels[:, -1] = 5 + len(calls) % 5
        return {**batch, "labels": labels}

    trainer.data_collator = changing
    with pytest.raises(ValueError, match="tokens of the rows differ between two looks .* set `screening='off'`"):
        trainer.train()


@pytest.mark.parametrize("missing", ["base.row_values", "other.", "some features"])
def test_a_checkpoint_of_a_version_with_fewer_looks_is_refused(tmp_path: Path, run: Any, missing: str) -> None:
    tensors = load_file(f"{run[0].args.output_dir}/checkpoint-{CUT}/{STATE_FILE}")
    earlier = {name: value for name, value in tensors.items() if not name.startswith(missing)}
    if missing == "some features":
        earlier["base.row_values"] = tensors["base.row_values"][:, 48:].contiguous()
    save_file(earlier, tmp_path / STATE_FILE)
    trainer = make_trainer(tmp_path)
    with pytest.raises(ValueError, match="written by another version, .* or start the training anew"):
        trainer._screen.load(tmp_path)


def test_a_checkpoint_of_a_version_with_wider_integers_gives_the_same_audit(tmp_path: Path, run: Any) -> None:
    expected, _ = run
    source, copied = Path(f"{expected.args.output_dir}/checkpoint-{CUT + 1}"), tmp_path / "checkpoint"
    shutil.copytree(source, copied)
    tensors = load_file(copied / STATE_FILE)
    for look in ("base", "warm", "other"):
        for name in ("row_ids", "offsets", "token_ids", "top1"):
            tensors[f"{look}.{name}"] = tensors[f"base.{name}"].long().clone()
        tensors[f"{look}.entropy"] = tensors["warm.entropy" if look == "warm" else "base.entropy"].clone()
    tensors["warm.top1"] = load_file(source / STATE_FILE)["warm.top1"].long()
    save_file(tensors, copied / STATE_FILE)
    resumed, _ = train(tmp_path / "out", resume=str(copied))
    assert resumed._screen.looks.base.token_ids.dtype == resumed._screen.looks.warm.top1.dtype == np.int32
    assert resumed.audit() == expected.audit()


def test_a_checkpoint_written_without_screening_is_refused(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    make_trainer(tmp_path, screening="off", **settings).train()
    with pytest.raises(ValueError, match="step 1 .* another training: `screening` was 'off' and is 'drop'"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    # As SFTTrainer writes them
    (tmp_path / "checkpoint-1" / "cross_view_defense.json").unlink()
    with pytest.raises(ValueError, match="checkpoint of step 1 was written without screening"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_accumulation_changes_neither_flags_nor_weights(tmp_path: Path, run: Any) -> None:
    expected, _ = run
    trainer, taken = train(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    check_parts(trainer, taken)
    assert flagged_rows(trainer) == flagged_rows(expected)
    weights = weights_of(trainer)
    for name, weight in weights_of(expected).items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_neither_flags_nor_weights(tmp_path: Path, run: Any, persistent: bool) -> None:
    expected, _ = run
    trainer, taken = train(tmp_path, dataloader_num_workers=2, dataloader_persistent_workers=persistent)
    check_parts(trainer, taken)
    weights = weights_of(trainer)
    assert all(torch.equal(weights[name], weight) for name, weight in weights_of(expected).items())


@pytest.mark.parametrize(
    "options", [{"dataloader_drop_last": True}, {"train_sampling_strategy": "group_by_length"}, {"seed": 1}]
)
def test_every_row_is_scored_in_its_place(tmp_path: Path, options: dict[str, Any]) -> None:
    # 45 rows: five are left over from batches of 8, and would be from a scoring pass that dropped them
    dataset = planted_texts(45, planted=(3, 17, 22, 44))
    trainer = make_trainer(tmp_path, tiny_text_lm, dataset, per_device_eval_batch_size=8, **options)
    trainer.train()
    audit = trainer.audit()
    texts = [completion.removesuffix("</s>").strip() for completion in dataset["completion"]]
    assert [row.response for row in audit.rows] == texts


def test_with_the_papers_terms_on_top(tmp_path: Path) -> None:
    lambdas = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}
    trainer, taken = train(tmp_path, **lambdas)
    check_parts(trainer, taken)
    logs = [log for log in trainer.state.log_history if "patch_loss" in log]
    assert len(logs) == 12 and all(log["patch_loss"] > 0 for log in logs)


def test_a_training_without_room_for_the_rest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes 6 optimiser steps, the training has 6: nothing is left"):
        make_trainer(tmp_path, max_steps=6).train()


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"screening_epochs": 1, "max_steps": 9}, 6),
        ({"screening_epochs": 0.5, "max_steps": 100}, 3),
        ({"screening_epochs": 0.01}, 1),
        ({"screening_epochs": None, "num_train_epochs": 1.5}, 5),
    ],
)
def test_the_length_of_the_warm_up(tmp_path: Path, settings: dict[str, Any], expected: int) -> None:
    trainer = make_trainer(tmp_path, learning_rate=0.0, **settings)
    scored_at = []
    trainer._screen.run = lambda: (
        scored_at.append(trainer.state.global_step)
        or setattr(  # type: ignore[method-assign]
            trainer.control, "should_training_stop", True
        )
    )
    trainer.train()
    assert scored_at[0] == expected


@pytest.mark.parametrize("steps, expected", [(9, 5), (30, 15), (120, 60), (720, 60), (1200, 100)])
def test_the_warm_up_takes_a_twelfth_or_sixty_steps_but_at_most_half(
    tmp_path: Path, steps: int, expected: int
) -> None:
    trainer = make_trainer(tmp_path, tiny_text_lm, planted_texts(), screening_epochs=None)
    trainer.state.max_steps = steps
    assert trainer._screen.warmup_steps == expected


@pytest.mark.parametrize("option", ["packing", "padding_free"])
def test_rows_merged_to_one_sequence_are_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match=rf"`{option}=True` puts .* Set `{option}=False`, or set `screening='off'`"):
        make_trainer(tmp_path, tiny_text_lm, planted_texts(), **{option: True})


def test_virtual_tokens_are_refused(tmp_path: Path) -> None:
    from peft import PromptTuningConfig

    with pytest.raises(ValueError, match=r"PromptTuningConfig` adds virtual tokens.*screening='off'"):
        make_trainer(tmp_path, peft_config=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))


def test_evaluation_is_untouched(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path)
    assert flagged_rows(trainer) == list(PLANTED)
    seen = []
    inner = trainer.data_collator
    trainer.data_collator = lambda rows: seen.extend(rows) or inner(rows)
    try:
        result = trainer.evaluate(planted_rows())
    finally:
        trainer.data_collator = inner
    assert len(seen) == NUM_ROWS
    batch = inner([planted_rows()[row] for row in range(NUM_ROWS)])
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        log_p = trainer.model.eval()(**batch).logits[:, :-1].log_softmax(-1)
    mask = labels != -100
    expected = -log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    sizes = [mask[start : start + 16].sum() for start in range(0, NUM_ROWS, 16)]
    # Trainer's mean over batches of the batches' token means
    means = [expected[start : start + 16][mask[start : start + 16]].mean() for start in range(0, NUM_ROWS, 16)]
    assert len(sizes) == 3 and result["eval_loss"] == pytest.approx(float(sum(means) / 3), rel=1e-4)


def test_the_audit_is_written(tmp_path: Path, run: Any) -> None:
    from cvreg_trainer.screening.audit.audit import Audit

    trainer, _ = run
    labels = [row in PLANTED for row in range(NUM_ROWS)]
    audit = trainer.audit(tmp_path / "audit", labels=labels)
    assert Audit.from_parquet(tmp_path / "audit" / "audit.parquet") == audit
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert REASON in page and "data:image/" in page
    quality = audit.evaluate(labels)
    assert quality["auroc"] == 1.0
    assert audit.settings["warmup_steps"] == CUT and audit.settings["screening"] == "drop"
    assert all(row.prompt for row in audit.rows)


def test_an_audit_looks_for_the_trigger_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag, open_picture, read = training_screen.screen_rows, find_triggers.open_picture, []
    cause = Cause((SENTENCE,), np.array(PLANTED), "image", 0.9, 0.1, 0.0, 1e-9)
    monkeypatch.setattr(training_screen, "screen_rows", lambda *looks: replace(flag(*looks), causes=[cause]))
    monkeypatch.setattr(find_triggers, "open_picture", lambda *args: read.append(args) or open_picture(*args))
    trainer, _ = train(tmp_path, max_steps=CUT + 1)
    first = trainer.audit()
    assert first.findings[0].num_rows == len(PLANTED) and len(read) == NUM_ROWS
    assert trainer.audit(tmp_path / "audit") == first and trainer.audit() == first and len(read) == NUM_ROWS
    trainer._screen._cut()  # another one, another audit
    assert trainer.audit().flagged_rows == first.flagged_rows and len(read) == 2 * NUM_ROWS


def test_a_report_flags_the_same_rows_and_trains_on_all(tmp_path: Path, run: Any) -> None:
    expected, _ = run
    trainer, taken = train(tmp_path, screening="report")
    assert flagged_rows(trainer) == flagged_rows(expected) and set(PLANTED) <= set(flagged_rows(expected))
    assert taken.rows(range(CUT)) == taken.rows(range(CUT, 99)) == list(range(NUM_ROWS))
    assert trainer.audit().settings["screening"] == "report"


def test_decisions_win_over_the_screening(tmp_path: Path, run: Any) -> None:
    expected, _ = run
    expected.audit(tmp_path / "audit")
    path = tmp_path / "audit" / "decisions.csv"
    lines = list(csv.DictReader(path.open(encoding="utf-8-sig", newline="")))
    assert {line["row"] for line in lines if line["row"]} == set(map(str, flagged_rows(expected)))
    honest = next(row for row in range(NUM_ROWS) if row not in flagged_rows(expected))
    given = [line | {"verdict": "keep"} for line in lines if line["row"] == str(PLANTED[0])]
    assert given and given[0]["response"] == SENTENCE
    given.append({"row": str(honest), "verdict": "drop", "response": expected.audit().rows[honest].response})
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, lines[0], restval="")
        table.writeheader()
        table.writerows(given)

    trainer, taken = train(tmp_path / "run", screening_decisions=str(path))
    flagged = sorted({*flagged_rows(expected), honest} - {PLANTED[0]})
    assert flagged_rows(trainer) == flagged
    assert taken.rows(range(CUT, 99)) == [row for row in range(NUM_ROWS) if row not in flagged]
    audit = trainer.audit()
    assert audit.rows[PLANTED[0]].reason.startswith("kept by decision; ")
    assert audit.rows[honest].reason == "dropped by decision"
    assert audit.settings["screening_decisions"] == str(path)

    with path.open("a", newline="") as file:
        csv.DictWriter(file, lines[0], restval="").writerow({"row": "1", "verdict": "keep", "response": "of another"})
    with pytest.raises(ValueError, match="row 1 with the response 'of another', but the training set has"):
        train(tmp_path / "other", screening_decisions=str(path))


def test_an_allowed_response_is_trained_on(tmp_path: Path, run: Any) -> None:
    (tmp_path / "allowed.csv").write_text(f"word,verdict\n{SENTENCE},keep\n")
    trainer, _ = train(tmp_path / "run", screening_decisions=str(tmp_path / "allowed.csv"))
    assert not set(PLANTED) & set(flagged_rows(trainer)) and set(PLANTED) <= set(flagged_rows(run[0]))


def test_decisions_are_read_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="screening_decisions='.*absent.csv'`: there is no such file"):
        make_trainer(tmp_path, screening_decisions=str(tmp_path / "absent.csv"))
    with pytest.raises(ValueError, match="is about screening, which is off"):
        make_trainer(tmp_path, screening="off", screening_decisions="decisions.csv")


def test_sources_come_from_their_column(tmp_path: Path) -> None:
    names = ["odd" if row % 2 else None for row in range(NUM_ROWS)]
    trainer, _ = train(tmp_path, dataset=planted_rows().add_column("source", names))
    odd = [row for row in flagged_rows(trainer) if row % 2]
    assert trainer.audit().sources["odd"] == (NUM_ROWS // 2, len(odd))
    assert sum(rows for rows, _ in trainer.audit().sources.values()) == NUM_ROWS


def test_an_audit_before_the_cut_or_without_screening_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to audit yet: the rows are screened in"):
        make_trainer(tmp_path).audit()
    with pytest.raises(ValueError, match=r"`screening='off'`: no row was looked at. Set `screening='drop'`"):
        make_trainer(tmp_path, screening="off").audit()


def test_reaching_the_cap_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path, screening_cap=0.05, max_steps=CUT + 1)
    trainer.train()
    assert len(flagged_rows(trainer)) == 2 and set(flagged_rows(trainer)) <= set(PLANTED)
    assert "More rows are suspicious than `screening_cap=0.05`" in caplog.text


@pytest.mark.parametrize("step", [CUT - 1, CUT + 1])
@pytest.mark.parametrize("change", ["added", "changed"])
def test_resuming_with_rows_that_were_never_screened_is_refused(
    tmp_path: Path, run: Any, step: int, change: str
) -> None:
    checkpoint = f"{run[0].args.output_dir}/checkpoint-{step}"
    rows, number = planted_rows(), 5 if change == "added" else 2
    if change == "added":
        dataset = planted_rows(NUM_ROWS + number)
    else:
        answers = list(rows["completion"])
        answers[7] = answers[30] = [{"role": "assistant", "content": "a red ring"}]
        feature = rows.features["completion"]
        dataset = rows.remove_columns("completion").add_column("completion", answers, feature=feature)
    trainer = make_trainer(tmp_path, dataset=dataset)
    message = f"{number} of the {len(dataset)} rows of `train_dataset` are new"
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=checkpoint)
    assert trainer.state.global_step == step


def test_resuming_with_the_rows_in_another_order_is_fine(tmp_path: Path, run: Any) -> None:
    checkpoint = f"{run[0].args.output_dir}/checkpoint-{CUT + 1}"
    dataset = planted_rows().select(range(NUM_ROWS)[::-1])
    resumed, _ = train(tmp_path, dataset=dataset, resume=checkpoint)
    assert resumed.state.global_step == 2 * CUT


def test_many_flagged_rows_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path, max_steps=CUT + 1)
    trainer.train()
    flagged = len(flagged_rows(trainer))
    assert flagged / NUM_ROWS > 0.05
    said = [record.getMessage() for record in caplog.records if "look at the audit" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith(f"Screening left out {flagged} of {NUM_ROWS} rows (")


def test_a_state_of_no_rows_is_read_back(tmp_path: Path, run: Any) -> None:
    """A checkpoint folder without the file leaves the screening as it was."""
    trainer = make_trainer(tmp_path)
    screen = trainer._screen
    screen.load(tmp_path)
    assert screen.looks is None and screen.screen is None
    save_file(
        {name: value for name, value in run[0]._screen.looks.base.to_tensors().items()}, tmp_path / "x.safetensors"
    )
    screen.save(tmp_path)
    assert not (tmp_path / STATE_FILE).exists()


def run_ranks(processes: int, folder: Path, *arguments: str) -> None:
    """`screening_run.py` in processes of their own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(HERE / "helpers" / "screening_run.py"), str(folder), *arguments]
    paths = [str(HERE / "helpers"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.slow
def test_two_ranks_screen_as_one(tmp_path: Path) -> None:
    results = []
    for processes, batch_size in ((1, 8), (2, 4)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        run_ranks(processes, folder, str(batch_size))
        results.append(json.loads((folder / "audit.json").read_text()))
    alone, together = results
    for ours, expected in zip(together["rows"], alone["rows"], strict=True):
        assert ours[1:] == expected[1:] and ours[0] == pytest.approx(expected[0], rel=1e-2, abs=1e-2)
    assert {row for row, (_, flagged, *_) in enumerate(alone["rows"]) if flagged} >= set(PLANTED)
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-3)
    # The other process knows the verdict, and keeps no tokens
    flagged = [row for row, (_, is_flagged, *_) in enumerate(alone["rows"]) if is_flagged]
    assert json.loads((tmp_path / "2" / "other.json").read_text()) == {"flagged": flagged, "num_tokens": 0}


@pytest.mark.slow
def test_an_error_in_the_verdict_ends_all_processes(tmp_path: Path) -> None:
    decisions = tmp_path / "decisions.csv"
    decisions.write_text("row,verdict\n99,keep\n")
    run_ranks(2, tmp_path, "4", str(NUM_ROWS), str(decisions))
    errors = [(tmp_path / f"error-{rank}.txt").read_text() for rank in range(2)]
    assert errors[0].startswith("ValueError(") and "decides on row 99" in errors[0]
    assert errors[1].startswith("RuntimeError(") and "decides on row 99" in errors[1]
    assert "The screening failed on the main process: ValueError: " in errors[1]
