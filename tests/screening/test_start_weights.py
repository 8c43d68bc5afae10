# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The weights from before the warm-up; under FSDP2 and DeepSpeed in test_distributed.py."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from screening_checks import CUT, train, weights_of
from screening_run import PLANTED, flagged_rows, make_trainer
from tiny_models import tiny_llava

from cvreg_trainer.screening.passes import collator
from cvreg_trainer.screening.stop_after_screening import StopAfterScreening


pytestmark = [pytest.mark.lowest, pytest.mark.usefixtures("flags_sentence")]
FILE = "screening_start_0.safetensors"


def test_at_the_cut_the_training_goes_back_to_the_weights_it_began_with(tmp_path: Path):
    trainer = make_trainer(tmp_path)
    trainer.add_callback(StopAfterScreening(trainer._screen))
    trainer.train()
    for (name, weight), start in zip(trainer.model.named_parameters(), tiny_llava()[0].parameters(), strict=True):
        assert torch.equal(weight, start), name
    # After the warm-up, whose steps have changed the weights, and the verdict
    assert [log["step"] for log in trainer.state.log_history if "loss" in log] == list(range(1, CUT + 1))
    assert flagged_rows(trainer) == list(PLANTED)
    assert not trainer.optimizer.state and trainer._screen.start is None


@pytest.mark.parametrize("options", [{}, {"peft_config": LoraConfig(r=4, target_modules=["q_proj"])}])
def test_nothing_of_the_warm_up_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict):
    torch.manual_seed(0)
    expected, _ = train(tmp_path / "strong", **options)
    monkeypatch.setattr(collator, "strong_view", lambda image, seed: image)
    torch.manual_seed(0)
    trainer, _ = train(tmp_path / "plain", **options)
    losses = [[log["loss"] for log in one.state.log_history if "loss" in log] for one in (expected, trainer)]
    assert losses[0][1:CUT] != losses[1][1:CUT] and losses[0][CUT:] == losses[1][CUT:]
    weights = weights_of(trainer)
    assert all(torch.equal(weight, weights[name]) for name, weight in weights_of(expected).items())


def test_checkpoints_have_them_until_the_cut(tmp_path: Path):
    trainer, _ = train(tmp_path, save_strategy="steps", save_steps=CUT - 1, save_total_limit=None)
    kept = load_file(tmp_path / f"checkpoint-{CUT - 1}" / FILE)
    start = dict(tiny_llava()[0].named_parameters())
    assert kept.keys() == start.keys() and all(torch.equal(kept[name], start[name]) for name in start)
    assert not (tmp_path / f"checkpoint-{2 * (CUT - 1)}" / FILE).exists()


def test_a_checkpoint_without_them_or_of_another_model_is_refused(tmp_path: Path):
    train(tmp_path, max_steps=CUT + 1, save_strategy="steps", save_steps=1)
    checkpoint = tmp_path / "checkpoint-1"
    kept = load_file(checkpoint / FILE)
    save_file(dict(list(kept.items())[1:]), checkpoint / FILE)
    with pytest.raises(ValueError, match=f"{FILE} is of a model with other trainable weights"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / FILE).unlink()
    with pytest.raises(ValueError, match=f"has no {FILE}, the weights from before the warm-up"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))
