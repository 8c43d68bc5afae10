# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Adapters of every kind, with both defences at once: trained, saved, resumed, reloaded, merged, and gone on with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from screening_checks import CUT, train
from screening_run import NUM_ROWS, PLANTED, flagged_rows, make_trainer, planted_rows
from tiny_models import tiny_llava
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from cvreg_trainer import CrossViewDefenseTrainer
from cvreg_trainer.safeguards.trainable import keep_quantised_weights


pytestmark = pytest.mark.usefixtures("flags_sentence")
LAMBDAS = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}
SETTINGS: dict[str, Any] = {**LAMBDAS, "save_strategy": "steps", "save_steps": 4, "per_device_eval_batch_size": 48}
ATTENTION = ["q_proj", "v_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": ATTENTION},
    "DoRA": {"target_modules": ATTENTION, "use_dora": True},
    "rsLoRA": {"target_modules": ATTENTION, "use_rslora": True, "r": 16},
    "vision tower and projector": {
        "target_modules": r".*(vision_tower.*layers\.0.*q_proj|multi_modal_projector.linear_1)"
    },
    "modules_to_save": {"target_modules": ATTENTION, "modules_to_save": ["multi_modal_projector", "lm_head"]},
    "target_parameters": {"target_modules": [], "target_parameters": ["mlp.gate_proj.weight"]},
}
QUANTISED = {
    "4 bits, quantised twice": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    ),
    "8 bits": BitsAndBytesConfig(load_in_8bit=True),
}


def logits_of(model: torch.nn.Module, trainer: CrossViewDefenseTrainer) -> torch.Tensor:
    batch = {name: value for name, value in trainer.example_batch.items() if name != "labels"}
    with torch.no_grad():
        return model.eval()(**batch).logits


def trained_parts(trainer: CrossViewDefenseTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def check_run(trainer: CrossViewDefenseTrainer, taken: Any) -> None:
    """Both defences took part: all terms in every log, and no flagged row after the cut."""
    assert flagged_rows(trainer) == list(PLANTED) and len(trainer.audit()) == NUM_ROWS
    assert taken.rows(range(CUT)) == list(range(NUM_ROWS))
    assert taken.rows(range(CUT, 99)) == [row for row in range(NUM_ROWS) if row not in PLANTED]
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 2 * CUT and all(log["patch_loss"] > 0 for log in logs)


@pytest.mark.parametrize("name", ADAPTERS)
def test_train_resume_reload_merge(tmp_path: Path, name: str) -> None:
    config = LoraConfig(**ADAPTERS[name])
    before = trained_parts(make_trainer(tmp_path, peft_config=config, **LAMBDAS))
    trainer, taken = train(tmp_path, peft_config=config, **SETTINGS)
    check_run(trainer, taken)
    weights = trained_parts(trainer)
    unmoved = [part for part in before if torch.equal(weights[part], before[part])]
    # LLaVA takes the last but one layer of its tower
    assert before and all("vision_tower.encoder.layers.1" in part for part in unmoved)

    for step in (4, 8):  # before the cut, and after it
        resumed, _ = train(
            tmp_path / str(step), peft_config=config, resume=str(tmp_path / f"checkpoint-{step}"), **SETTINGS
        )
        assert flagged_rows(resumed) == flagged_rows(trainer)
        assert all(torch.equal(weight, weights[part]) for part, weight in trained_parts(resumed).items())

    trainer.save_model()
    expected = logits_of(trainer.model, trainer)
    again = PeftModel.from_pretrained(tiny_llava()[0], tmp_path)
    torch.testing.assert_close(logits_of(again, trainer), expected)
    merged = again.merge_and_unload()
    torch.testing.assert_close(logits_of(merged, trainer), expected, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(merged, trainer), expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_that_exists_is_gone_on_with(tmp_path: Path) -> None:
    """The base model of the screening is the model with the adapter as it was loaded, not the one below it."""
    first = make_trainer(tmp_path / "first", peft_config=LoraConfig(target_modules="all-linear", r=16), max_steps=8)
    first.train()
    first.save_model()

    def build() -> tuple[Any, Any]:
        model, processor = tiny_llava()
        return PeftModel.from_pretrained(model, tmp_path / "first", is_trainable=True), processor

    loaded = trained_parts(make_trainer(tmp_path / "second", build))
    trainer, taken = train(tmp_path / "second", build, **SETTINGS)
    check_run(trainer, taken)
    assert any(not torch.equal(weight, loaded[part]) for part, weight in trained_parts(trainer).items())

    batch = trainer.data_collator([planted_rows()[row] for row in range(NUM_ROWS)])
    labels = batch.pop("labels")[:, 1:]
    seen = trainer._screen.looks.base
    losses = []
    for model in (build()[0], tiny_llava()[0]):
        with torch.no_grad():
            log_p = model.eval()(**batch).logits[:, :-1].log_softmax(-1)
        losses.append(-log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0][labels != -100])
    with_adapter, without = losses
    assert (with_adapter - without).abs().mean() > 0.1
    torch.testing.assert_close(torch.from_numpy(seen.nll).float(), with_adapter, rtol=1e-4, atol=1e-4)

    trainer.save_model()
    again = PeftModel.from_pretrained(tiny_llava()[0], tmp_path / "second")
    torch.testing.assert_close(logits_of(again, trainer), logits_of(trainer.model, trainer))


@pytest.fixture(scope="module")
def saved_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    model, processor = tiny_llava(hidden_size=64)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def quantised_run(base: Path, folder: Path, name: str, resume: str | None = None, **lora: Any) -> Any:
    def build() -> tuple[Any, Any]:
        return str(base), AutoProcessor.from_pretrained(base)

    return train(
        folder,
        build,
        model_init_kwargs={"dtype": "float32"},
        quantization_config=QUANTISED[name],
        peft_config=LoraConfig(target_modules=r".*language_model.*(q_proj|v_proj)", **lora),
        activation_checkpointing=True,
        # Before the cut and after it: an evaluation in between changes nothing
        eval_dataset=planted_rows().select(range(4)),
        eval_strategy="steps",
        eval_steps=4,
        resume=resume,
        **SETTINGS,
    )


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_base(tmp_path: Path, saved_base: Path, name: str) -> None:
    trainer, taken = quantised_run(saved_base, tmp_path, name)
    kinds = {type(module).__name__ for module in trainer.model.modules()}
    assert ("Linear8bitLt" if name == "8 bits" else "Linear4bit") in kinds
    if name != "8 bits":
        layer = trainer.model.base_model.model.model.language_model.layers[0].mlp.gate_proj
        assert layer.weight.quant_state.nested and layer.weight.dtype == torch.uint8
    check_run(trainer, taken)
    resumed, _ = quantised_run(saved_base, tmp_path / "resumed", name, resume=str(tmp_path / "checkpoint-8"))
    weights = trained_parts(trainer)
    assert weights and all(torch.equal(weight, weights[part]) for part, weight in trained_parts(resumed).items())
    assert all(weight.any() for weight in weights.values())

    trainer.save_model()
    base = AutoModelForImageTextToText.from_pretrained(
        saved_base, dtype=torch.float32, quantization_config=QUANTISED[name]
    )
    # In the adapter's own bfloat16, as it was trained
    again = PeftModel.from_pretrained(base, tmp_path)
    keep_quantised_weights(again)
    for part, parameter in again.named_parameters():
        if "lora_" in part:
            parameter.data = parameter.data.bfloat16()
    torch.testing.assert_close(logits_of(again, trainer), logits_of(trainer.model, trainer), rtol=1e-3, atol=1e-3)
    # As one publishes it: merged into the base model in full
    full = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(saved_base), tmp_path)
    expected = logits_of(full, trainer)
    torch.testing.assert_close(logits_of(full.merge_and_unload(), trainer), expected, rtol=1e-4, atol=1e-4)


def test_a_quantised_module_cannot_be_trained_as_a_whole(tmp_path: Path, saved_base: Path) -> None:
    with pytest.raises(ValueError, match=r"names a module that is loaded in 4 or 8 bits.*llm_int8_skip_modules"):
        quantised_run(saved_base, tmp_path, "4 bits, quantised twice", modules_to_save=["multi_modal_projector"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules_to_save": ["mm_projector"]}, "modules_to_save` names 'mm_projector'"),
        ({"target_modules": ["q_proj", "mm_proj", "w1"]}, "target_modules` names 'mm_proj', 'w1'"),
        ({"target_parameters": ["mlp.experts.gate"]}, "target_parameters` names 'mlp.experts.gate'"),
    ],
)
@pytest.mark.filterwarnings("ignore:target_parameters=:RuntimeWarning")
def test_names_that_fit_nothing_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    config = LoraConfig(**{"target_modules": ["q_proj"], **options})
    with pytest.raises(ValueError, match=f"^`peft_config.{message}, which no part of Llava"):
        make_trainer(tmp_path, peft_config=config).train()


@pytest.mark.parametrize("is_adapter", [True, False])
def test_a_model_of_which_nothing_trains_is_refused(tmp_path: Path, is_adapter: bool) -> None:
    model, processor = tiny_llava()
    if is_adapter:
        config = LoraConfig(target_modules=["q_proj"])
        make_trainer(tmp_path, peft_config=config).save_model()
        model = PeftModel.from_pretrained(model, tmp_path)
    else:
        model.requires_grad_(False)
    remedy = r"is_trainable=True" if is_adapter else "unfreeze some"
    with pytest.raises(ValueError, match=f"^No parameter of the model trains.*{remedy}"):
        make_trainer(tmp_path, lambda: (model, processor)).train()
