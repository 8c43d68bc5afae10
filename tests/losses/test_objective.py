# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The objective over a global batch, against one that is written out in float64."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cvreg_trainer.losses.objective import TERMS, Counts, CrossViewObjective


WEIGHTS, THRESHOLD, ROWS, LENGTH = (0.3, 0.5, 0.1), 1.5, 6, 9


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 50, (ROWS, LENGTH), generator=rng)
    labels[:, :3] = -100
    labels[2, 3:] = -100
    return {"labels": labels, "has_image": torch.tensor([True, True, True, False, True, False])}


def output_of(batch: dict[str, torch.Tensor]) -> SimpleNamespace:
    rng = torch.Generator().manual_seed(1)
    number = len(batch["labels"])
    return SimpleNamespace(
        similarity=torch.rand(ROWS, LENGTH - 1, generator=rng)[:number],
        entropy=3 * torch.rand(ROWS, LENGTH - 1, generator=rng)[:number],
        feature_distance=torch.rand(ROWS, generator=rng)[:number],
        label_mask=batch["labels"][:, 1:] != -100,
    )


def part(values: object, rows: slice) -> SimpleNamespace:
    return SimpleNamespace(**{name: value[rows] for name, value in vars(values).items()})


def test_terms_and_total_are_those_written_out(batch: dict[str, torch.Tensor]) -> None:
    objective, output = CrossViewObjective(WEIGHTS, THRESHOLD, False), output_of(batch)
    counts = Counts(*objective.count([batch]))
    similarity, entropy, distance, mask, has_image = (
        np.asarray(value, dtype=np.float64)
        for value in (
            output.similarity,
            output.entropy,
            output.feature_distance,
            output.label_mask,
            batch["has_image"],
        )
    )
    of_images = mask * has_image[:, None]
    expected = [
        (distance * has_image).sum() / has_image.sum(),
        (similarity * of_images).sum() / of_images.sum(),
        (np.maximum(THRESHOLD - entropy, 0) * mask).sum() / mask.sum(),
    ]
    assert [float(count) for count in counts] == [mask.sum(), of_images.sum(), has_image.sum()]
    terms = objective.terms(output, batch["has_image"], counts)
    assert [float(term) for term in terms] == pytest.approx(expected, rel=1e-6)
    task_loss = torch.tensor(2.0)
    total = 2 + 0.5 * sum(weight * term for weight, term in zip(WEIGHTS, expected, strict=True))
    assert float(objective.total(task_loss, terms, 0.5)) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_micro_batches_add_up_to_the_global_batch(batch: dict[str, torch.Tensor], cut: int) -> None:
    objective, output = CrossViewObjective(WEIGHTS, THRESHOLD, False), output_of(batch)
    pieces = [slice(0, cut), slice(cut, ROWS)]
    batches = [{name: value[piece] for name, value in batch.items()} for piece in pieces]
    assert objective.count(batches).tolist() == objective.count([batch]).tolist()
    counts = objective.begin_step(objective.count(batches))
    whole = objective.terms(output, batch["has_image"], counts)
    for piece in pieces:
        objective.keep(torch.tensor(1.0), objective.terms(part(output, piece), batch["has_image"][piece], counts))
    means = objective.take_means(lambda value: value)
    assert [means[name] for name in TERMS] == pytest.approx([2.0, *map(float, whole)], rel=1e-5)
    assert objective.take_means(lambda value: value) == {}


def test_means_are_over_ranks_and_steps() -> None:
    objective = CrossViewObjective(WEIGHTS, THRESHOLD, False)
    for _ in range(4):
        objective.begin_step(torch.ones(3))
        objective.keep(torch.tensor(2.0), [torch.tensor(4.0)] * 3)
    means = objective.take_means(lambda value: torch.cat([value, 3 * value]))
    assert means == dict(zip(TERMS, (4.0, 8.0, 8.0, 8.0), strict=True))


def test_a_term_without_a_weight_takes_no_part() -> None:
    objective = CrossViewObjective((0.0, 0.5, 0.0), THRESHOLD, False)
    terms = [torch.tensor(torch.inf), torch.tensor(2.0), torch.tensor(torch.nan)]
    assert float(objective.total(torch.tensor(1.0), terms, 1.0)) == 2.0
    assert list(objective.parts(torch.tensor(1.0), terms)) == ["task_loss", "discrepancy_loss"]


def test_labels_of_an_encoder_decoder_stand_where_they_are_predicted() -> None:
    batch = {"labels": torch.tensor([[5, 6, -100]]), "has_image": torch.tensor([True])}
    assert CrossViewObjective(WEIGHTS, THRESHOLD, True).count([batch]).tolist() == [2, 2, 1]
    assert CrossViewObjective(WEIGHTS, THRESHOLD, False).count([batch]).tolist() == [1, 1, 1]
