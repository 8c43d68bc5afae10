# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The defended loss: against an independent float64 reading of the paper, and what it must not depend on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_models import tiny_blip2_opt, tiny_blip2_t5, tiny_llava, vision_dataset, vision_rows
from torch import nn

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


pytestmark = pytest.mark.lowest
LAMBDAS = {"lambda_patch": 0.3, "lambda_discrepancy": 0.5, "lambda_entropy": 0.2, "entropy_threshold": 4.0}
SETTINGS: dict[str, Any] = {
    "screening": "off",
    "bf16": False,
    "activation_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "learning_rate": 0.05,
    "optim": "sgd",
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
}


def make_trainer(
    folder: Path, build: Any = tiny_llava, dataset: Any = None, **settings: Any
) -> CrossViewDefenseTrainer:
    model, processor = build()
    kwargs = {
        name: settings.pop(name) for name in ("data_collator", "eval_dataset", "peft_config") if name in settings
    }
    args = CrossViewDefenseConfig(str(folder), **{**SETTINGS, **LAMBDAS, **settings})
    dataset = vision_dataset(12, image_free=(2, 7), several=(4,)) if dataset is None else dataset
    return CrossViewDefenseTrainer(model=model, args=args, train_dataset=dataset, processing_class=processor, **kwargs)


def reference_terms(model: nn.Module, batch: dict[str, Any], layer: str) -> dict[str, torch.Tensor]:
    """The four terms of one batch, from two forwards of the bare model with logits in full, in float64."""
    features: list[torch.Tensor] = []

    def keep(_: nn.Module, args: Any, output: Any) -> None:
        features.append((output[0] if isinstance(output, tuple) else output).double())

    handle = model.get_submodule(layer).register_forward_hook(keep)
    names = {name for name in batch if not name.startswith("perturbed_")} - {"has_image", "labels"}
    logits = []
    for view in ("", "perturbed_"):
        outputs = model(**{name: batch.get(view + name, batch[name]) for name in names})
        logits.append(outputs.logits.double()[:, :-1])
    handle.remove()
    labels, mask, has_image = batch["labels"][:, 1:], batch["attention_mask"].double(), batch["has_image"]
    valid = labels != -100
    p, q = (z.softmax(-1) for z in logits)
    pooled = [(states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True) for states in features]
    entropy = -(p * p.log()).sum(-1)
    return {
        "task_loss": -p.gather(-1, labels.clamp(min=0)[..., None])[..., 0].log()[valid].mean(),
        "patch_loss": (pooled[0] - pooled[1]).square().sum(-1)[has_image].mean(),
        "discrepancy_loss": torch.cosine_similarity(p, q, dim=-1)[valid & has_image[:, None]].mean(),
        "entropy_loss": (LAMBDAS["entropy_threshold"] - entropy).clamp(min=0)[valid].mean(),
    }


def test_loss_and_gradient_equal_an_independent_reading(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, per_device_train_batch_size=6)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["has_image"].any() and not batch["has_image"].all()
    trainer.model.train()
    terms = reference_terms(trainer.model, batch, "model.language_model.layers.2")
    expected = terms["task_loss"] + sum(
        LAMBDAS[f"lambda_{name}"] * terms[f"{name}_loss"] for name in ("patch", "discrepancy", "entropy")
    )
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    for name, parameter in trainer.model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6, msg=name)


def weights_after(trainer: CrossViewDefenseTrainer) -> dict[str, torch.Tensor]:
    trainer.train()
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("build", [tiny_llava, tiny_blip2_t5])
def test_accumulation_changes_neither_loss_nor_weights(tmp_path: Path, build: Any) -> None:
    plain = build is not tiny_llava
    rows = vision_rows(
        11, image_free=(2, 7), style="plain" if plain else "prompt_completion", image_token="" if plain else "<image>"
    )
    dataset = Dataset.from_list(rows)
    runs = []
    # 11 rows in windows of 8: the second window has 3 rows, and micro-batches of unequal size
    for size, steps in ((8, 1), (4, 2), (2, 4)):
        trainer = make_trainer(
            tmp_path,
            build,
            dataset,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            num_train_epochs=2,
        )
        runs.append((weights_after(trainer), trainer.state.log_history))
    for weights, logs in runs[1:]:
        for name, weight in weights.items():
            torch.testing.assert_close(weight, runs[0][0][name], rtol=1e-5, atol=1e-6, msg=name)
        for ours, expected in zip(logs[:-1], runs[0][1][:-1], strict=True):
            for key in ("loss", "task_loss", "patch_loss", "discrepancy_loss", "entropy_loss"):
                assert ours[key] == pytest.approx(expected[key], rel=1e-5, abs=1e-8), key


def test_logged_loss_is_the_weighted_sum_of_the_logged_terms(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2, logging_steps=3)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 3
    for log in logs:
        weighted = sum(LAMBDAS[f"lambda_{name}"] * log[f"{name}_loss"] for name in ("patch", "discrepancy", "entropy"))
        assert log["loss"] == pytest.approx(log["task_loss"] + weighted, rel=1e-6)
        assert {"entropy", "mean_token_accuracy", "num_tokens"} <= set(log)


def test_token_metrics_count_the_original_view_only(tmp_path: Path) -> None:
    defended = make_trainer(tmp_path, max_steps=1)
    plain = make_trainer(
        tmp_path, max_steps=1, **dict.fromkeys(("lambda_patch", "lambda_discrepancy", "lambda_entropy"), 0)
    )
    logs = []
    for trainer in (defended, plain):
        trainer.train()
        logs.append(trainer.state.log_history[0])
    assert logs[0]["num_tokens"] == logs[1]["num_tokens"]
    assert logs[0]["entropy"] == pytest.approx(logs[1]["entropy"], rel=1e-5)
    assert logs[0]["task_loss"] == pytest.approx(logs[1]["loss"], rel=1e-5)


def test_warmup_scales_the_terms(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, lambda_warmup_steps=0.5, max_steps=4, per_device_train_batch_size=4)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["lambda_scale"] for log in logs] == [0.5, 1.0, 1.0, 1.0]
    for log in logs:
        weighted = sum(LAMBDAS[f"lambda_{name}"] * log[f"{name}_loss"] for name in ("patch", "discrepancy", "entropy"))
        assert log["loss"] == pytest.approx(log["task_loss"] + log["lambda_scale"] * weighted, rel=1e-6)


def test_a_resumed_run_sees_the_same_views(tmp_path: Path) -> None:
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 4}
    straight = make_trainer(tmp_path / "a", **settings)
    straight.train()
    resumed = make_trainer(tmp_path / "b", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    logs = [[log for log in t.state.log_history if "loss" in log][4:] for t in (straight, resumed)]
    for ours, expected in zip(*logs, strict=True):
        assert ours["patch_loss"] == expected["patch_loss"]
        assert ours["loss"] == expected["loss"]
    assert straight._cross_view_collator.epoch == resumed._cross_view_collator.epoch == 2


def test_views_change_from_epoch_to_epoch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_train_epochs=2, per_device_train_batch_size=12, learning_rate=0.0)
    trainer.train()
    first, second = (log for log in trainer.state.log_history if "loss" in log)
    assert first["task_loss"] == pytest.approx(second["task_loss"], rel=1e-5)
    assert first["patch_loss"] != pytest.approx(second["patch_loss"], rel=1e-3)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, use_reentrant: bool) -> None:
    settings = {"max_steps": 2, "per_device_train_batch_size": 4}
    expected = weights_after(make_trainer(tmp_path, **settings))
    kwargs = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": use_reentrant}}
    weights = weights_after(make_trainer(tmp_path, **settings, **kwargs))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_dft_is_the_task_loss_where_asked_for(tmp_path: Path) -> None:
    logs = []
    for lambdas in ({}, dict.fromkeys(("lambda_patch", "lambda_discrepancy", "lambda_entropy"), 0)):
        trainer = make_trainer(tmp_path, loss_type="dft", max_steps=1, **lambdas)
        trainer.train()
        logs.append(trainer.state.log_history[0])
    assert logs[0]["task_loss"] == pytest.approx(logs[1]["loss"], rel=1e-5)


def test_no_supervised_token_gives_a_zero_loss_and_finite_weights(tmp_path: Path) -> None:
    def unsupervised(examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = dict(make_trainer.collator(examples))
        return {**batch, "labels": torch.full_like(batch["labels"], -100)}

    make_trainer.collator = make_trainer(tmp_path).data_collator
    trainer = make_trainer(tmp_path, data_collator=unsupervised, max_steps=1, lambda_patch=0.0)
    weights = weights_after(trainer)
    assert trainer.state.log_history[0]["loss"] == 0
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_a_head_that_does_not_reproduce_the_models_loss_is_an_error(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, build=tiny_llava, max_steps=1)
    plain_loss = trainer.model.loss_function
    trainer.model.loss_function = lambda *args, **kwargs: plain_loss(*args, **kwargs) * 2
    with pytest.raises(
        ValueError, match=r"does not reproduce the loss of LlavaForConditionalGeneration: \d.* instead of"
    ):
        trainer.train()


@pytest.mark.parametrize("build", [tiny_blip2_opt, tiny_blip2_t5])
def test_blip2_trains_saves_and_generates(tmp_path: Path, build: Any) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    dataset = Dataset.from_list(vision_rows(6, style="plain", image_token=""))
    trainer = make_trainer(tmp_path, build, dataset, max_steps=2, per_device_train_batch_size=3, eval_dataset=dataset)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert torch.isfinite(torch.tensor(trainer.evaluate()["eval_loss"]))
    moved = [name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])]
    assert any(name.startswith("vision_model") for name in moved)
    assert any(name.startswith("language_model") for name in moved)
    trainer.save_model(str(tmp_path / "saved"))
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    inputs = processor(images=dataset[0]["images"], text=dataset[0]["prompt"], return_tensors="pt")
    for tuned in (trainer.model, model):
        tokens = tuned.eval().generate(**inputs, max_new_tokens=4, do_sample=False)
        assert tokens.shape[1] >= 1


def test_what_trl_asks_of_the_model_beyond_a_call_fails_loudly(tmp_path: Path) -> None:
    """A later TRL that reads an attribute would otherwise get that of a stand-in, or none."""
    from cvreg_trainer.trainer import _BothViews

    stand_in = _BothViews(object(), object())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"SFTTrainer.compute_loss of TRL \d.* asks the model for `config`"):
        stand_in.config  # noqa: B018
    with pytest.raises(TypeError, match="fused_lm_head"):
        stand_in(input_ids=None)
