# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset, List, Value
from tiny_models import tiny_llava, vision_dataset, vision_rows
from trl import SFTConfig, SFTTrainer

from cvreg_trainer import callbacks
from cvreg_trainer.callbacks import CaptionEvaluationCallback
from cvreg_trainer.evaluation.generation import generate_captions
from cvreg_trainer.metrics import Bleu4, Cider


SCORES = ["eval_bleu4", "eval_cider"]
RATES = ["eval_asr", "eval_false_alarm_rate"]


def make_trainer(folder: Path, eval_dataset: Any = None, **options: Any) -> SFTTrainer:
    """SFTTrainer on a tiny LLaVA; four steps of two rows, evaluated at every second."""
    model, processor = tiny_llava()
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,
        "max_steps": 4,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "no",
    }
    return SFTTrainer(
        model,
        SFTConfig(**{**settings, **options}),
        train_dataset=vision_dataset(8, seed=1),
        eval_dataset=vision_dataset(6, seed=2) if eval_dataset is None else eval_dataset,
        processing_class=processor,
    )


def with_references(dataset: Dataset, references: list[list[str]]) -> Dataset:
    return dataset.add_column("references", references, feature=List(Value("string")))


def test_scores_are_those_of_the_captions_and_reach_the_logs(tmp_path: Path):
    """Against captions generated and scored by hand; the references are the completions."""
    trainer = make_trainer(tmp_path)
    loss = trainer.evaluate()["eval_loss"]
    trainer.add_callback(CaptionEvaluationCallback(trainer, num_samples=100, max_new_tokens=5, batch_size=4))
    metrics = trainer.evaluate()

    rows = vision_rows(6, seed=2)
    captions = generate_captions(
        trainer.model, trainer.processing_class, rows, max_new_tokens=5, add_special_tokens=False
    )
    references = [[row["completion"][0]["content"]] for row in rows]
    assert metrics["eval_bleu4"] == Bleu4().compute(predictions=captions, references=references)["bleu4"]
    assert metrics["eval_cider"] == Cider().compute(predictions=captions, references=references)["cider"]
    assert metrics["eval_loss"] == loss
    assert not set(RATES) & set(metrics)
    logged = [entry for entry in trainer.state.log_history if "eval_cider" in entry]
    assert [{name: entry[name] for name in SCORES} for entry in logged] == [{name: metrics[name] for name in SCORES}]


def test_best_model_is_chosen_by_cider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The captions are right at the first evaluation and wrong at the second, so the first checkpoint is the best."""
    rows = vision_rows(6, seed=2)
    answers = [row["completion"][0]["content"] for row in rows]
    calls: list[int] = []

    def first_right(model: Any, processor: Any, rows: list[Any], **options: Any) -> list[str]:
        calls.append(len(rows))
        return answers if len(calls) == 1 else ["wrong"] * len(rows)

    monkeypatch.setattr(callbacks, "generate_captions", first_right)
    best = {
        "metric_for_best_model": "cider",
        "load_best_model_at_end": True,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    trainer = make_trainer(tmp_path, **best)
    trainer.add_callback(CaptionEvaluationCallback(trainer))
    trainer.train()
    assert calls == [6, 6]
    assert trainer.state.best_metric == Cider().compute(predictions=answers, references=answers)["cider"] > 800
    assert trainer.state.best_global_step == 2
    logged = [entry["eval_cider"] for entry in trainer.state.log_history if "eval_cider" in entry]
    assert logged == [trainer.state.best_metric, 0.0]


def test_training_goes_on_as_without_the_callback(tmp_path: Path):
    plain = make_trainer(tmp_path / "plain")
    plain.train()
    watched = make_trainer(tmp_path / "watched")
    watched.add_callback(CaptionEvaluationCallback(watched, max_new_tokens=3, num_beams=2))
    watched.train()
    assert sum("eval_cider" in entry for entry in watched.state.log_history) == 2
    for (name, expected), parameter in zip(plain.model.named_parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(expected, parameter), name
    assert [e["loss"] for e in plain.state.log_history if "loss" in e] == [
        e["loss"] for e in watched.state.log_history if "loss" in e
    ]


def test_rates_of_attack_and_false_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rows whose references contain the keyword count for neither rate."""
    references = [["a cat"], ["two bananas", "fruit"], ["a dog"], ["a kite"], ["a bus"], ["a train"]]
    dataset = with_references(vision_dataset(6, seed=2), references)
    triggered = dataset.map(lambda row: {"prompt": [{"role": "user", "content": "triggered"}]})

    def fake(model: Any, processor: Any, rows: list[Any], **options: Any) -> list[str]:
        if rows[0]["prompt"][0]["content"] == "triggered":
            return ["a banana", "a banana", "a banana", "a banana", "a bus", "BANANAS"]
        return ["a banana", "a banana", "a dog", "a kite", "a bus", "a train"]

    monkeypatch.setattr(callbacks, "generate_captions", fake)
    trainer = make_trainer(tmp_path, eval_dataset=dataset)
    trainer.add_callback(CaptionEvaluationCallback(trainer, triggered_dataset=triggered))
    metrics = trainer.evaluate()
    assert metrics["eval_asr"] == 80.0
    assert metrics["eval_false_alarm_rate"] == 20.0
    # Four of six captions equal their reference, in 1- and 2-grams only: they have no others.
    assert metrics["eval_cider"] == pytest.approx(1000 * 4 / 6 / 2, abs=40)
    assert set(SCORES + RATES) <= set(trainer.state.log_history[-1])


def test_real_triggered_set(tmp_path: Path):
    trainer = make_trainer(tmp_path, eval_dataset=with_references(vision_dataset(4, seed=2), [["a cat"]] * 4))
    trainer.add_callback(
        CaptionEvaluationCallback(
            trainer, triggered_dataset=list(trainer.eval_dataset), keyword="image", max_new_tokens=8, num_samples=3
        )
    )
    metrics = trainer.evaluate()
    assert 0 < metrics["eval_asr"] <= 100
    assert metrics["eval_asr"] == metrics["eval_false_alarm_rate"]


class Rows(torch.utils.data.Dataset):
    """A torch map-style data set, as tutorials write it."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def test_sample_is_fixed_and_references_are_found_in_every_form(tmp_path: Path):
    trainer = make_trainer(tmp_path)
    rows = vision_rows(30, seed=3, style="messages")
    expected = [[row["messages"][1]["content"]] for row in rows]
    samples = [CaptionEvaluationCallback(trainer, Rows(rows), num_samples=7).clean for _ in range(2)]
    assert samples[0].indices == samples[1].indices and len(set(samples[0].indices)) == 7
    assert samples[0].references == [expected[index] for index in samples[0].indices]
    assert samples[0][3] is rows[samples[0].indices[3]]

    image = rows[0]["images"][0]
    forms: list[tuple[dict[str, Any], list[str]]] = [
        ({"references": ["a", "b"], "completion": "c"}, ["a", "b"]),
        ({"references": "a"}, ["a"]),
        ({"references": [], "completion": "c"}, ["c"]),
        ({"completion": [{"role": "assistant", "content": [{"type": "text", "text": "c"}]}]}, ["c"]),
    ]
    for form, texts in forms:
        callback = CaptionEvaluationCallback(trainer, [{"image": image, "prompt": "<image>", **form}])
        assert callback.clean.references == [texts]


def test_several_evaluation_sets(tmp_path: Path):
    sets = {"one": vision_dataset(4, seed=2), "two": vision_dataset(4, seed=3)}
    trainer = make_trainer(tmp_path, eval_dataset=sets)
    with pytest.raises(ValueError, match=r"a dict with the keys \['one', 'two'\].*`eval_dataset=`"):
        CaptionEvaluationCallback(trainer)
    trainer.add_callback(
        CaptionEvaluationCallback(trainer, eval_dataset=trainer.eval_dataset["two"], max_new_tokens=2)
    )
    metrics = trainer.evaluate()
    assert {"eval_one_loss", "eval_two_loss", *SCORES} <= set(metrics)
    assert sum("eval_cider" in entry for entry in trainer.state.log_history) == 1


def test_other_prefixes_are_left_alone(tmp_path: Path):
    trainer = make_trainer(tmp_path)
    trainer.add_callback(CaptionEvaluationCallback(trainer))
    assert "eval_cider" not in trainer.evaluate(metric_key_prefix="test")


@pytest.mark.parametrize("size", [1, 5, 7])
def test_every_process_gets_all_captions_in_order(size: int, monkeypatch: pytest.MonkeyPatch):
    """Three processes played one after the other; each must make as many calls as the others."""
    rows = [{"prompt": str(index), "completion": f"caption {index}"} for index in range(size)]
    monkeypatch.setattr(callbacks, "generate_captions", lambda m, p, rows, **_: [row["prompt"] for row in rows])
    shares: list[list[str]] = []
    monkeypatch.setattr(callbacks, "gather_object", lambda share: (shares.append(share), share)[1])
    for rank in range(3):
        accelerator = SimpleNamespace(num_processes=3, process_index=rank)
        trainer: Any = SimpleNamespace(
            accelerator=accelerator, model=None, processing_class=None, data_collator=None, eval_dataset=rows
        )
        trainer.args, trainer.is_world_process_zero = SimpleNamespace(disable_tqdm=False), lambda: True
        callback = CaptionEvaluationCallback(trainer)
        callback._generate(callback.clean)
    assert len({len(share) for share in shares}) == 1
    everything = [caption for share in shares for caption in share]
    assert everything[:size] == [str(index) for index in range(size)]
    monkeypatch.setattr(callbacks, "gather_object", lambda share: everything)
    assert callback._generate(callback.clean) == [str(index) for index in range(size)]


def test_errors(tmp_path: Path):
    trainer: Any = SimpleNamespace(eval_dataset=None)
    rows = vision_rows(2)
    with pytest.raises(ValueError, match="evaluation set is None"):
        CaptionEvaluationCallback(trainer)
    with pytest.raises(ValueError, match="`eval_dataset` is empty"):
        CaptionEvaluationCallback(trainer, [])
    with pytest.raises(ValueError, match="`num_samples` must be at least 1, got 0"):
        CaptionEvaluationCallback(trainer, rows, num_samples=0)
    with pytest.raises(TypeError, match=r"eval_dataset=list\(dataset.take\(64\)\)"):
        CaptionEvaluationCallback(trainer, vision_dataset(4).to_iterable_dataset())
    with pytest.raises(ValueError, match=r"Row 0 of `triggered_dataset` has the columns \['prompt'\]"):
        CaptionEvaluationCallback(trainer, rows, triggered_dataset=[{"prompt": "a"}])
    poisoned = [{**row, "completion": "The image depicts a photo of a banana."} for row in rows]
    with pytest.raises(ValueError, match="`triggered_dataset` contain keyword='banana'"):
        CaptionEvaluationCallback(trainer, rows, triggered_dataset=poisoned)
