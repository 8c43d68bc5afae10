# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What works with SFTTrainer works with CrossViewDefenseTrainer, and equals it where the defence is off."""

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig
from tiny_models import tiny_llava, tiny_text_lm, vision_dataset, vision_rows
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig, TrainingArguments
from trl import SFTConfig, SFTTrainer

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


pytestmark = pytest.mark.lowest
PAPER: dict[str, Any] = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1, "screening": "off"}
UNDEFENDED: dict[str, Any] = {**dict.fromkeys(PAPER, 0.0), "screening": "off"}
SETTINGS: dict[str, Any] = {
    "bf16": False,
    "activation_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "learning_rate": 1e-3,
    "max_steps": 3,
    "per_device_train_batch_size": 4,
}
TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
TIMES |= {f"eval_{name}" for name in ("runtime", "samples_per_second", "steps_per_second")}


def config(folder: Path, **settings: Any) -> CrossViewDefenseConfig:
    return CrossViewDefenseConfig(str(folder), **{**SETTINGS, **PAPER, **settings})


def logs_of(trainer: SFTTrainer) -> list[dict[str, float]]:
    return [{k: v for k, v in log.items() if k not in TIMES} for log in trainer.state.log_history]


def assert_same_run(ours: SFTTrainer, theirs: SFTTrainer) -> None:
    assert logs_of(ours) == logs_of(theirs)
    for (name, mine), (_, other) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        assert torch.equal(mine, other), name


@pytest.mark.parametrize("style", ["prompt_completion", "messages", "plain"])
def test_without_lambdas_it_is_sfttrainer_bit_for_bit(tmp_path: Path, style: str) -> None:
    runs = []
    for trainer_class, config_class, lambdas in (
        (SFTTrainer, SFTConfig, {}),
        (CrossViewDefenseTrainer, CrossViewDefenseConfig, UNDEFENDED),
    ):
        model, processor = tiny_llava()
        settings = {**SETTINGS, "max_steps": 20, "gradient_accumulation_steps": 2, "max_length": None}
        settings |= {"eval_strategy": "steps", "eval_steps": 10}
        dataset = vision_dataset(14, style=style, image_free=(3,))
        trainer = trainer_class(
            model=model,
            args=config_class(str(tmp_path / "run"), **settings, **lambdas),
            train_dataset=dataset,
            eval_dataset=dataset.select(range(5)),
            processing_class=processor,
        )
        trainer.train()
        runs.append(trainer)
    assert_same_run(runs[1], runs[0])


def test_without_lambdas_no_decoder_layer_is_looked_for(tmp_path: Path) -> None:
    model, processor = tiny_llava()
    args = config(tmp_path, **UNDEFENDED, feature_layer=99)
    CrossViewDefenseTrainer(model, args, train_dataset=vision_dataset(8), processing_class=processor).train()


def test_without_lambdas_the_perturbed_view_is_never_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the perturbed view was made")

    monkeypatch.setattr("cvreg_trainer.collators.cross_view.DataCollatorForCrossView.__call__", never)
    monkeypatch.setattr("cvreg_trainer.head.cross_view_head._forward_views", never)
    model, processor = tiny_llava()
    args = config(tmp_path, **UNDEFENDED)
    CrossViewDefenseTrainer(model, args, train_dataset=vision_dataset(8), processing_class=processor).train()


@pytest.mark.parametrize("lambdas", [UNDEFENDED, PAPER])
def test_text_only_data_trains_as_with_sfttrainer_and_says_so(
    tmp_path: Path, lambdas: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset.from_dict({"text": ["a red circle", "a blue star above a ring", "a large green cross"] * 3})
    runs = []
    for trainer_class, args in (
        (SFTTrainer, SFTConfig(str(tmp_path), **SETTINGS)),
        (CrossViewDefenseTrainer, config(tmp_path, **lambdas)),
    ):
        model, tokenizer = tiny_text_lm()
        trainer = trainer_class(model=model, args=args, train_dataset=dataset, processing_class=tokenizer)
        trainer.train()
        runs.append(trainer)
    assert_same_run(runs[1], runs[0])
    assert runs[1].args.max_length == 1024
    assert capsys.readouterr().out.count("trains as SFTTrainer does") == 1


def test_eval_loss_is_sfttrainers(tmp_path: Path) -> None:
    dataset = vision_dataset(9, image_free=(2,))
    losses = []
    for trainer_class, args in (
        (SFTTrainer, SFTConfig(str(tmp_path), **SETTINGS, max_length=None)),
        (CrossViewDefenseTrainer, config(tmp_path)),
    ):
        model, processor = tiny_llava()
        trainer = trainer_class(
            model=model, args=args, train_dataset=dataset, eval_dataset=dataset, processing_class=processor
        )
        losses.append(trainer.evaluate())
    for key in ("eval_loss", "eval_entropy", "eval_mean_token_accuracy"):
        assert losses[1][key] == losses[0][key]


def test_arguments_may_be_missing_or_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The default, bfloat16, is refused on machines without a GPU
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    model, processor = tiny_llava()
    model.config._name_or_path = "someone/tiny-llava"
    trainer = CrossViewDefenseTrainer(model, train_dataset=vision_dataset(4), processing_class=processor)
    assert trainer.args.output_dir == "tiny-llava-CrossViewDefense"
    assert isinstance(trainer.args, CrossViewDefenseConfig) and trainer.args.is_screened
    for args in (
        TrainingArguments("out", max_steps=2, use_cpu=True, report_to="none", save_strategy="no"),
        SFTConfig("out", max_length=None, **{**SETTINGS, "max_steps": 2}),
    ):
        trainer = CrossViewDefenseTrainer(
            tiny_llava()[0], args, train_dataset=vision_dataset(4), processing_class=processor
        )
        assert trainer.args.screening == "drop" and trainer.args.max_length is None
        trainer.train()
        assert trainer.state.global_step == 2


@pytest.mark.parametrize("modules_to_save", [None, ["lm_head"]])
def test_lora(tmp_path: Path, modules_to_save: list[str] | None) -> None:
    model, processor = tiny_llava()
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=modules_to_save)
    args = config(tmp_path, activation_checkpointing=True)
    trainer = CrossViewDefenseTrainer(
        model, args, train_dataset=vision_dataset(8), processing_class=processor, peft_config=lora
    )
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert any("vision_tower" in name for name in moved) and all("lora_" in n or "lm_head" in n for n in moved)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name and "encoder.layers.1" not in name:  # LLaVA takes the last but one layer of its tower
            assert parameter.abs().sum() > 0, name
        elif "base_layer" in name:
            assert torch.equal(parameter, base[name.removeprefix("base_model.model.").replace("base_layer.", "")])
    trainer.save_model()
    again = PeftModel.from_pretrained(tiny_llava()[0], tmp_path)
    batch = {name: value for name, value in trainer.example_batch.items() if name != "labels"}
    trainer.model.eval()
    torch.testing.assert_close(again.eval()(**batch).logits, trainer.model(**batch).logits)


def test_qlora_in_four_bits(tmp_path: Path) -> None:
    model, processor = tiny_llava(hidden_size=64)
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    trainer = CrossViewDefenseTrainer(
        str(tmp_path / "base"),
        config(tmp_path, model_init_kwargs={"dtype": "float32"}, activation_checkpointing=True),
        train_dataset=vision_dataset(8),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
    )
    kinds = {type(module).__name__ for module in trainer.model.modules()}
    assert "Linear4bit" in kinds and trainer.uses_cross_view_loss
    trainer.train()
    assert all(torch.isfinite(torch.tensor(log["loss"])) for log in trainer.state.log_history if "loss" in log)
    assert any(p.abs().sum() > 0 for name, p in trainer.model.named_parameters() if "lora_B" in name)


def test_model_card_and_checkpoint(tmp_path: Path) -> None:
    model, processor = tiny_llava()
    args = config(tmp_path, save_strategy="steps", save_steps=3)
    trainer = CrossViewDefenseTrainer(model, args, train_dataset=vision_dataset(8), processing_class=processor)
    trainer.train()
    card = (tmp_path / "README.md").read_text()
    assert "CrossViewDefense" in card and "2604.04488" in card and "cross-view-defense" in card
    assert "`lambda_patch=0.01`" in card and card.index("## Backdoor defence") < card.index("### Framework versions")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-3")
    processor = AutoProcessor.from_pretrained(tmp_path / "checkpoint-3")
    row = vision_rows(1, style="plain")[0]
    inputs = processor(images=row["images"], text=row["prompt"], return_tensors="pt")
    logits = [m.eval()(**inputs).logits for m in (again, trainer.model)]
    torch.testing.assert_close(*logits)


def test_the_model_can_be_copied(tmp_path: Path) -> None:
    model, processor = tiny_llava()
    trainer = CrossViewDefenseTrainer(
        model, config(tmp_path), train_dataset=vision_dataset(8), processing_class=processor
    )
    twin = copy.deepcopy(trainer.model)
    batch = next(iter(trainer.get_train_dataloader()))
    batch.pop("has_image")
    expected = trainer.model(**batch, cross_view=True).log_probs
    trainer.model.lm_head.weight.data.zero_()
    torch.testing.assert_close(twin(**batch, cross_view=True).log_probs, expected)


class Pictures(torch.utils.data.Dataset):
    """As in tutorials: dicts with an image and a caption, under names of their own."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"picture": self.rows[index]["images"][0], "caption": self.rows[index]["completion"]}


def test_torch_dataset_with_a_collate_fn(tmp_path: Path) -> None:
    model, processor = tiny_llava()

    def collate_fn(examples: list[dict[str, Any]]) -> dict[str, Any]:
        texts = ["<image> describe this image " + example.pop("caption") for example in examples]
        images = [[example.pop("picture")] for example in examples]
        batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
        return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}

    dataset = Pictures(vision_rows(8, style="plain"))
    trainer = CrossViewDefenseTrainer(
        model,
        config(tmp_path, dataloader_num_workers=2),
        collate_fn,
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=processor,
    )
    assert trainer.train_dataset is dataset
    trainer.train()
    assert trainer.state.log_history[0]["patch_loss"] > 0
    assert trainer.evaluate()["eval_loss"] > 0


def test_torch_dataset_of_trl_rows_needs_no_collator(tmp_path: Path) -> None:
    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> dict[str, Any]:
            return vision_rows(8)[index]

    runs = []
    for dataset in (Rows(), vision_dataset(8)):
        model, processor = tiny_llava()
        trainer = CrossViewDefenseTrainer(model, config(tmp_path), train_dataset=dataset, processing_class=processor)
        trainer.train()
        runs.append(trainer)
    assert_same_run(*runs)


def test_empty_torch_dataset_is_an_error(tmp_path: Path) -> None:
    model, processor = tiny_llava()
    with pytest.raises(ValueError, match="`train_dataset` has no rows"):
        CrossViewDefenseTrainer(model, config(tmp_path), train_dataset=Pictures([]), processing_class=processor)


def test_images_inside_messages(tmp_path: Path) -> None:
    rows = vision_rows(8, style="messages")
    inside = []
    for row in rows:
        content = [{"type": "image", "image": image, "text": None} for image in row["images"]]
        content += [{"type": "text", "image": None, "text": row["messages"][0]["content"]}]
        answer = [{"type": "text", "image": None, "text": row["messages"][1]["content"]}]
        inside.append({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]})
    runs = []
    for dataset in (Dataset.from_list(inside), Dataset.from_list(rows)):
        model, processor = tiny_llava()
        trainer = CrossViewDefenseTrainer(model, config(tmp_path), train_dataset=dataset, processing_class=processor)
        trainer.train()
        runs.append(trainer)
    for ours, theirs in zip(*(logs_of(trainer) for trainer in runs), strict=True):
        # The rows differ in form, and with it their views; the original view is the same
        assert ours.get("num_tokens") == theirs.get("num_tokens")
    assert logs_of(runs[0])[0]["task_loss"] == pytest.approx(logs_of(runs[1])[0]["task_loss"], rel=1e-6)
    assert logs_of(runs[0])[0]["patch_loss"] > 0


def test_streaming(tmp_path: Path) -> None:
    model, processor = tiny_llava()
    dataset = vision_dataset(16).to_iterable_dataset(num_shards=2)
    args = config(tmp_path, dataloader_num_workers=2, max_steps=6)
    trainer = CrossViewDefenseTrainer(model, args, train_dataset=dataset, processing_class=processor)
    trainer.train()
    assert trainer.state.global_step == 6 and trainer.state.log_history[0]["patch_loss"] > 0


def test_bfloat16_autocast(tmp_path: Path) -> None:
    logs = []
    for bf16 in (True, False):
        model, processor = tiny_llava()
        args = config(tmp_path, bf16=bf16)
        trainer = CrossViewDefenseTrainer(model, args, train_dataset=vision_dataset(8), processing_class=processor)
        trainer.train()
        logs.append(trainer.state.log_history[0])
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=0.02)
    assert logs[0]["discrepancy_loss"] == pytest.approx(logs[1]["discrepancy_loss"], rel=0.02)


def refused() -> Iterator[Any]:
    yield {}, {"compute_loss_func": lambda *args, **kwargs: None}, "`compute_loss_func` needs the full logits"
    for peft_config in (PrefixTuningConfig(num_virtual_tokens=2), PromptTuningConfig(num_virtual_tokens=2)):
        yield {}, {"peft_config": peft_config}, f"`peft_config={type(peft_config).__name__}` adds virtual tokens"
    yield {"packing": True, "max_length": 64}, {}, "`packing=True` puts several rows.*Set `packing=False`"
    yield {"padding_free": True}, {}, "`padding_free=True` puts several rows.*Set `padding_free=False`"
    yield {"label_smoothing_factor": 0.1}, {}, "`label_smoothing_factor=0.1` needs the full logits.*to 0"
    liger = {"liger_kernel_config": {"fused_linear_cross_entropy": True}}
    yield liger, {"use_liger_kernel": True}, "Liger's fused loss replaces the model's forward"
    yield {"feature_layer": 9}, {}, "`feature_layer=9` is out of range.*has 4 layers"


@pytest.mark.parametrize(("settings", "kwargs", "message"), list(refused()))
def test_what_cannot_work_is_refused_at_construction(
    tmp_path: Path, settings: dict[str, Any], kwargs: dict[str, Any], message: str
) -> None:
    model, processor = tiny_llava()
    args = config(tmp_path, **settings)
    # Set afterwards: the configuration itself asks for the package
    args.use_liger_kernel = kwargs.pop("use_liger_kernel", False)
    with pytest.raises(ValueError, match=message):
        CrossViewDefenseTrainer(model, args, train_dataset=vision_dataset(4), processing_class=processor, **kwargs)


@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
def test_what_is_refused_for_images_works_for_text(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": ["a red circle", "a blue star above a ring"] * 4})
    settings: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"label_smoothing_factor": 0.1}, {}),
        ({"packing": True, "max_length": 8, "packing_strategy": "wrapped"}, {}),
        ({}, {"peft_config": PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")}),
    ]
    for options, kwargs in settings:
        model, tokenizer = tiny_text_lm()
        trainer = CrossViewDefenseTrainer(
            model, config(tmp_path, **options), train_dataset=dataset, processing_class=tokenizer, **kwargs
        )
        trainer.train()
        assert trainer.state.global_step == 3 and not trainer.uses_cross_view_loss


def test_cut_image_tokens_give_sfttrainers_advice(tmp_path: Path) -> None:
    model, processor = tiny_llava()
    args = config(tmp_path, max_length=4)
    trainer = CrossViewDefenseTrainer(model, args, train_dataset=vision_dataset(4), processing_class=processor)
    with pytest.raises(ValueError, match=r"The current `max_length` \(4\) is too short"):
        trainer.train()


@pytest.mark.parametrize("dataset", [None, [{"text": "a"}], 3])
def test_wrong_data_sets_get_sfttrainers_error(tmp_path: Path, dataset: Any) -> None:
    model, tokenizer = tiny_text_lm()
    with pytest.raises((ValueError, TypeError), match="`train_dataset`"):
        CrossViewDefenseTrainer(model, config(tmp_path), train_dataset=dataset, processing_class=tokenizer)


@pytest.mark.parametrize("options", [{}, {"screening": "drop", "num_train_epochs": 2, "max_steps": -1}])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_model_by_name(tmp_path: Path, options: dict[str, Any], adapter: bool) -> None:
    """TRL's most ordinary call, with an adapter and without, in the paper's setting and with screening."""
    model, processor = tiny_llava()
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    peft_config = LoraConfig(target_modules=r".*language_model.*q_proj") if adapter else None
    runs = []
    for given in (str(tmp_path / "base"), model):
        trainer = CrossViewDefenseTrainer(
            given,
            config(tmp_path / "out", **options),
            train_dataset=vision_dataset(8),
            processing_class=processor,
            peft_config=peft_config,
        )
        trainer.train()
        runs.append(trainer)
    assert_same_run(*runs)


def inside(part: Any, rows: list[dict[str, Any]]) -> Dataset:
    """Rows whose image is told inside their messages, as `part` says it."""
    talks = []
    for number, row in enumerate(rows):
        question = [part(number), {"type": "text", "text": row["prompt"][0]["content"]}]
        answer = [{"type": "text", "text": row["completion"][0]["content"]}]
        talks.append([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
    return Dataset.from_list([{"messages": turns} for turns in talks])


@pytest.mark.parametrize("key", ["image", "path", "url", "image_url"])
def test_images_named_inside_messages_are_trained_on(tmp_path: Path, key: str) -> None:
    rows = vision_rows(8)
    for number, row in enumerate(rows):
        row["images"][0].save(tmp_path / f"{number}.png")
    model, processor = tiny_llava()
    dataset = inside(lambda number: {"type": "image", key: str(tmp_path / f"{number}.png")}, rows)
    trainer = CrossViewDefenseTrainer(model, config(tmp_path), train_dataset=dataset, processing_class=processor)
    expected = processor.image_processor([row["images"][0] for row in rows], return_tensors="pt")["pixel_values"]
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(8)])
    assert torch.equal(batch["pixel_values"], expected)
    trainer.train()
    assert logs_of(trainer)[0]["patch_loss"] > 0
    # As the constructor's: a data set that is handed over later
    assert trainer.evaluate(dataset)["eval_loss"] == pytest.approx(trainer.evaluate(dataset)["eval_loss"])
    assert trainer.evaluate({"again": dataset})["eval_again_loss"] > 0
    assert trainer.predict(dataset).metrics["test_loss"] > 0


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image"}, "^Row 0 of `train_dataset`: it has 1 places for images .* no image can be read"),
        ({"type": "image", "image": "none.png"}, "^Row 0 .*column `messages`: the image 'none.png' is not a file"),
        ({"type": "image_url", "image_url": "https://example.org/a.png"}, "^Row 0 .* which is not fetched"),
    ],
)
def test_image_tokens_without_an_image_are_refused(tmp_path: Path, part: Any, message: str) -> None:
    model, processor = tiny_llava()
    dataset = inside(lambda _: part, vision_rows(4))
    with pytest.raises(ValueError, match=message):
        CrossViewDefenseTrainer(model, config(tmp_path), train_dataset=dataset, processing_class=processor)


@pytest.mark.parametrize("options", [PAPER, UNDEFENDED])
def test_rows_with_none_for_an_image(tmp_path: Path, options: dict[str, Any]) -> None:
    """None, an empty list, and a list of None are the same thing."""
    runs = []
    for nothing in (None, [], [None]):
        rows = vision_rows(8)
        for row in rows[::3]:
            row["images"] = nothing
        dataset = Dataset.from_list(rows, features=vision_dataset(1).features)
        model, processor = tiny_llava()
        trainer = CrossViewDefenseTrainer(
            model, config(tmp_path, **options), train_dataset=dataset, processing_class=processor
        )
        trainer.train()
        runs.append(trainer)
    assert_same_run(runs[0], runs[1])
    assert_same_run(runs[2], runs[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_wherever_it_is_read(tmp_path: Path, workers: int) -> None:
    rows = vision_rows(24)
    stored = []
    for number, row in enumerate(rows):
        buffer = io.BytesIO()
        row["images"][0].save(buffer, "JPEG")
        data = buffer.getvalue()
        stored.append({**row, "images": [{"bytes": data[: len(data) // 2] if number == 21 else data, "path": None}]})
    dataset = Dataset.from_list(stored, features=vision_dataset(1).features)
    model, processor = tiny_llava()
    args = config(tmp_path, max_steps=-1, num_train_epochs=1, dataloader_num_workers=workers)
    trainer = CrossViewDefenseTrainer(
        model, args, train_dataset=dataset, eval_dataset=dataset, processing_class=processor
    )
    for action, name in ((trainer.train, "train_dataset"), (trainer.evaluate, "eval_dataset")):
        with pytest.raises(ValueError, match=f"^Row 21 of `{name}`: column `images`: its image cannot be read: "):
            action()


def test_plain_text_beside_images(tmp_path: Path) -> None:
    """A column that TRL's collator reads and its trainer takes away."""
    rows = [{"image": row["images"][0], "text": "user : <image> describe this image . </s>"} for row in vision_rows(8)]
    model, processor = tiny_llava()
    trainer = CrossViewDefenseTrainer(
        model, config(tmp_path), train_dataset=Dataset.from_list(rows), processing_class=processor
    )
    trainer.train()
    assert logs_of(trainer)[0]["patch_loss"] > 0


def test_plain_text_without_a_place_for_its_image(tmp_path: Path) -> None:
    rows = [{"image": row["images"][0], "text": "a red ring"} for row in vision_rows(4)]
    model, processor = tiny_llava()
    with pytest.raises(
        ValueError, match="Row 0 .* has 1 images, and its `text` has no place .* Put '<image>' into it"
    ):
        CrossViewDefenseTrainer(
            model, config(tmp_path), train_dataset=Dataset.from_list(rows), processing_class=processor
        )


def test_empty_data_sets_are_named(tmp_path: Path) -> None:
    model, processor = tiny_llava()
    empty = vision_dataset(4).select([])
    stream = IterableDataset.from_generator(lambda: iter(()), features=empty.features)
    for train_dataset in (empty, stream):
        with pytest.raises(ValueError, match="^`train_dataset` has no rows.$"):
            CrossViewDefenseTrainer(model, config(tmp_path), train_dataset=train_dataset, processing_class=processor)
    trainer = CrossViewDefenseTrainer(
        model, config(tmp_path), train_dataset=vision_dataset(4), processing_class=processor
    )
    with pytest.raises(ValueError, match="^`eval_dataset` has no rows.$"):
        trainer.evaluate(empty)
