# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A model's surprise at the supervised tokens, against float64 probabilities from its full logits."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llava, tiny_text_lm, vision_rows
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from cvreg_trainer.head.cross_view_head import add_cross_view_head
from cvreg_trainer.screening.passes.token_statistics import TokenStatistics


def batch(labels: list[list[int]], seed: int = 0, first_id: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    shape = torch.tensor(labels).shape
    return {
        "row_id": torch.arange(first_id, first_id + shape[0]),
        "labels": torch.tensor(labels),
        "nll": torch.rand(shape),
        "entropy": torch.rand(shape),
        "top1": torch.randint(9, shape),
    }


def test_batches_of_any_width_become_flat_arrays_in_order():
    first, second = batch([[-100, 5, 6], [-100, -100, -100]]), batch([[7, -100, -100, 8, 9]], 1, first_id=-3)
    statistics = TokenStatistics.from_batches([first, second])
    assert len(statistics) == 3 and statistics.row_ids.tolist() == [0, 1, -3]
    assert statistics.token_ids.tolist() == [5, 6, 7, 8, 9] and statistics.offsets.tolist() == [0, 2, 2, 5]
    assert statistics.token_rows.tolist() == [0, 0, 2, 2, 2]
    nll = [*first["nll"][0, 1:].tolist(), *second["nll"][0, [0, 3, 4]].tolist()]
    assert statistics.nll.tolist() == nll
    entropy = [*first["entropy"][0, 1:].tolist(), *second["entropy"][0, [0, 3, 4]].tolist()]
    assert statistics.top1.tolist() == [*first["top1"][0, 1:].tolist(), *second["top1"][0, [0, 3, 4]].tolist()]
    assert statistics.surprise == pytest.approx(np.array(nll) - entropy, abs=1e-6)
    assert statistics.row_nll[[0, 2]] == pytest.approx([np.mean(nll[:2]), np.mean(nll[2:])])
    assert np.isnan(statistics.row_nll).tolist() == [False, True, False]


def test_nothing_and_rows_without_tokens():
    empty = TokenStatistics.from_batches([])
    assert len(empty) == 0 and empty.row_nll.shape == (0,) and empty.offsets.tolist() == [0]
    silent = TokenStatistics.from_batches([batch([[-100, -100], [-100, -100]])])
    assert len(silent) == 2 and np.isnan(silent.row_nll).all() and silent.token_ids.shape == (0,)


@pytest.mark.parametrize(
    "batches", [[], [batch([[-100]])], [batch([[-100, 3, 4], [2, 2, 2]]), batch([[1]], 1, 2**62)]]
)
def test_a_file_gives_back_the_same_arrays(batches, tmp_path):
    statistics = TokenStatistics.from_batches(batches)
    save_file(statistics.to_tensors(), tmp_path / "statistics.safetensors")
    loaded = TokenStatistics.from_tensors(load_file(tmp_path / "statistics.safetensors"))
    for name in ("row_ids", "offsets", "token_ids", "nll", "entropy", "top1"):
        ours, expected = getattr(loaded, name), getattr(statistics, name)
        assert ours.dtype == expected.dtype and np.array_equal(ours, expected), name


@pytest.mark.parametrize("build", [tiny_llava, tiny_text_lm])
def test_values_equal_those_of_the_full_logits(build):
    model, processor = build()
    model.eval()
    if build is tiny_llava:
        inputs = dict(DataCollatorForVisionLanguageModeling(processor)(vision_rows(5)))
    else:
        encoded = processor(["a red circle", "the banana is above a star"], padding=True, return_tensors="pt")
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
        inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}
    labels = inputs["labels"]
    with torch.no_grad():
        logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits.double()
        add_cross_view_head(model)
        outputs = model(**inputs, single_view=True)
    values = {
        "row_id": torch.arange(len(labels)),
        "labels": labels[:, 1:].masked_fill(~outputs.label_mask, -100),
        "nll": -outputs.log_probs,
        "entropy": outputs.entropy,
        "top1": outputs.top1,
    }
    statistics = TokenStatistics.from_batches([values])
    log_p = logits.log_softmax(-1)
    means = []
    for row, start, end in zip(range(len(labels)), statistics.offsets, statistics.offsets[1:], strict=False):
        places = [place for place in range(1, labels.shape[1]) if labels[row, place] != -100]
        assert statistics.token_ids[start:end].tolist() == labels[row, places].tolist()
        nll = [-log_p[row, place - 1, labels[row, place]].item() for place in places]
        entropy = [-(log_p[row, place - 1].exp() * log_p[row, place - 1]).sum().item() for place in places]
        assert statistics.nll[start:end] == pytest.approx(nll, rel=1e-4, abs=1e-5)
        assert statistics.entropy[start:end] == pytest.approx(entropy, rel=1e-4, abs=1e-5)
        assert statistics.top1[start:end].tolist() == [log_p[row, place - 1].argmax().item() for place in places]
        means.append(sum(nll) / len(nll))
    assert statistics.row_nll == pytest.approx(means, rel=1e-4)


def test_a_look_of_likelihoods_alone_and_one_that_shares_its_tokens():
    batches = [batch([[-100, 3, 4], [2, 2, 2]]), batch([[1]], 1, 7)]
    full = TokenStatistics.from_batches(batches)
    alone = TokenStatistics.from_batches(
        [{name: values[name] for name in ("row_id", "labels", "nll")} for values in batches]
    )
    assert alone.entropy.shape == alone.top1.shape == (0,) and np.array_equal(alone.nll, full.nll)
    shared = alone.sharing(full)
    assert np.shares_memory(shared.token_ids, full.token_ids) and np.array_equal(shared.nll, alone.nll)
    other = TokenStatistics.from_batches([batch([[-100, 3, 4], [2, 5, 2]]), batch([[1]], 1, 7)])
    with pytest.raises(ValueError, match="differ between two looks"):
        other.sharing(full)


def test_rows_alone_have_no_tokens():
    rows = TokenStatistics.of_rows(np.array([4, -2, 9]))
    assert len(rows) == 3 and rows.row_ids.tolist() == [4, -2, 9] and rows.token_rows.shape == (0,)
    assert np.isnan(rows.row_nll).all()
