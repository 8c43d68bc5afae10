# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""STRIP on a predictor whose trigger decides alone; superimposed pixels; the threshold of a normal distribution."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cvreg_trainer.lab.baselines import false_rejection_threshold, strip, strip_scores
from cvreg_trainer.lab.baselines.strip import SuperimposedRows, superimpose


RED = (255, 0, 0)


class Backdoored(nn.Module):
    """Is sure of token 1 wherever the first pixel is as red as it gets; else the surer, the darker the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(
            is_encoder_decoder=False, get_text_config=lambda: SimpleNamespace(is_encoder_decoder=False)
        )
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def get_output_embeddings(self) -> None:
        """It has none."""

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> Any:
        triggered = pixel_values[:, 0, 0, 0] >= 1
        certainty = torch.where(triggered, 6.0, 3 * (1 - pixel_values.mean((1, 2, 3))))
        logits = torch.zeros(*input_ids.shape, 4)
        logits[..., 1] = certainty[:, None]
        return SimpleNamespace(logits=logits)


def collate(rows):
    pixels = np.stack([np.asarray(row["images"][0]) for row in rows]) / np.float32(255)
    return {
        "pixel_values": torch.from_numpy(pixels),
        "input_ids": torch.ones(len(rows), 3, dtype=torch.int64),
        "labels": torch.ones(len(rows), 3, dtype=torch.int64),
    }


def make_rows(number, seed, triggered=()):
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(number):
        pixels = rng.integers(0, 100, (8, 8, 3), dtype=np.uint8)
        if index in triggered:
            pixels[0, 0] = RED
        rows.append({"images": [Image.fromarray(pixels)], "prompt": "", "completion": "x"})
    return rows


@pytest.fixture
def toy_collator(monkeypatch):
    monkeypatch.setattr(strip, "response_collator", lambda *_: collate)


def test_the_rows_a_trigger_decides_come_first(toy_collator):
    poisoned = [3, 11, 12]
    rows, overlays = make_rows(20, seed=0, triggered=poisoned), make_rows(10, seed=1)
    scores = strip_scores(Backdoored(), None, rows, overlays, num_copies=4)
    assert scores.shape == (20,) and sorted(np.argsort(-scores)[:3]) == poisoned
    threshold = false_rejection_threshold(strip_scores(Backdoored(), None, make_rows(20, seed=2), overlays), 0.01)
    assert np.flatnonzero(scores > threshold).tolist() == poisoned


def test_scores_depend_on_the_seed_alone(toy_collator):
    rows = make_rows(6, seed=0)
    runs = [
        strip_scores(Backdoored(), None, rows, num_copies=2, seed=s, batch_size=b) for s, b in ((1, 2), (1, 5), (2, 2))
    ]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_pixels_are_added_and_clipped_and_size_and_mode_stay():
    image = Image.fromarray(np.full((4, 6, 3), 100, np.uint8))
    overlay = Image.fromarray(np.full((9, 3, 3), (10, 100, 200), np.uint8))
    result = superimpose(image, overlay)
    assert result.size == (6, 4) and np.unique(np.asarray(result).reshape(-1, 3), axis=0).tolist() == [[110, 200, 255]]
    assert superimpose(image.convert("L"), overlay).mode == "L"
    assert superimpose(np.asarray(image), np.asarray(overlay)).tolist() == np.asarray(result).tolist()


def test_rows_are_left_as_they_are_and_overlays_without_image_are_passed_over():
    rows, overlays = make_rows(2, seed=0), [{"images": []}, make_rows(1, seed=1)[0], {"images": []}]
    before = rows[1]["images"][0].tobytes()
    view = SuperimposedRows(rows, overlays, (0,))
    expected = superimpose(rows[1]["images"][0], overlays[1]["images"][0])
    assert len(view) == 2 and view[1]["images"][0].tobytes() == expected.tobytes()
    assert rows[1]["images"][0].tobytes() == before
    with pytest.raises(ValueError, match="None of the 1 rows of `overlays`"):
        SuperimposedRows(rows, [{"images": []}], (0,))[0]


def test_the_threshold_leaves_the_stated_share_of_a_normal_distribution_above_it():
    scores = np.random.default_rng(0).normal(-2, 0.5, 100_000)
    assert np.mean(scores > false_rejection_threshold(scores, 0.05)) == pytest.approx(0.05, abs=0.002)
    # mean 2, standard deviation 2 (with n - 1), and 1.6448536 the normal quantile at 95 %
    assert false_rejection_threshold(np.array([0.0, 2.0, 4.0]), 0.05) == pytest.approx(2 + 2 * 1.6448536, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "rate", "message"), [([1.0, 2.0], 0.0, "rate=0.0"), ([1.0], 0.1, "1 clean scores")]
)
def test_a_threshold_that_cannot_be_fitted_is_an_error(scores, rate, message):
    with pytest.raises(ValueError, match=message):
        false_rejection_threshold(np.array(scores), rate)


def test_no_copies_are_an_error(toy_collator):
    with pytest.raises(ValueError, match="num_copies=0"):
        strip_scores(Backdoored(), None, make_rows(2, seed=0), num_copies=0)
