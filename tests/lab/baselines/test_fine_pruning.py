# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Exactly the idle units go, nothing else changes, and no optimiser brings them back."""

import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_blip2_opt, tiny_blip2_t5, tiny_llava, tiny_mllama, vision_rows
from torch import nn

from cvreg_trainer.lab.baselines import fine_prune
from cvreg_trainer.lab.baselines.fine_pruning import mean_activations, mlp_projections, prune_units
from cvreg_trainer.lab.baselines.scoring import as_prompt_completion, response_collator


def collate(model, processor, rows):
    return response_collator(model, processor, rows)([as_prompt_completion(row) for row in rows])


def test_exactly_the_least_active_units_are_cleared():
    torch.manual_seed(1)
    layer = nn.Linear(10, 4)
    before = layer.weight.detach().clone()
    activation = torch.tensor([5.0, 1.0, 4.0, 9.0, 0.5, 7.0, 2.0, 8.0, 6.0, 3.0])
    assert prune_units(layer, activation, 0.3).tolist() == [4, 1, 6]
    cleared = [False, True, False, False, True, False, True, False, False, False]
    assert (layer.weight == 0).all(0).tolist() == cleared
    kept = ~torch.tensor(cleared)
    assert torch.equal(layer.weight[:, kept], before[:, kept])


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (tiny_llava, ["model.language_model.layers.3.mlp.down_proj", "model.language_model.layers.2.mlp.down_proj"]),
        (tiny_mllama, ["model.language_model.layers.3.mlp.down_proj", "model.language_model.layers.2.mlp.down_proj"]),
        (tiny_blip2_opt, ["language_model.model.decoder.layers.3.fc2", "language_model.model.decoder.layers.2.fc2"]),
        (
            tiny_blip2_t5,
            [f"language_model.decoder.block.{n}.layer.2.DenseReluDense.wo" for n in (1, 0)],
        ),
    ],
)
def test_the_projection_is_found_in_every_kind_of_decoder(make, names):
    model = make().model
    name_of = {module: name for name, module in model.named_modules()}
    found = [name_of[projection] for projection in mlp_projections(model, num_layers=2)]
    assert [name.removeprefix("model.") for name in found] == [name.removeprefix("model.") for name in names]


def test_layers_that_are_not_there_are_an_error():
    model = tiny_llava().model
    with pytest.raises(ValueError, match="num_layers=5.*4 layers"):
        mlp_projections(model, num_layers=5)
    with pytest.raises(ValueError, match="num_layers=0"):
        mlp_projections(model, num_layers=0)


def test_an_mlp_that_is_not_plain_is_an_error():
    class Packed(nn.Linear):
        pass

    model = tiny_llava().model
    model.model.language_model.layers[3].mlp.down_proj.__class__ = Packed
    with pytest.raises(ValueError, match="unquantised"):
        mlp_projections(model)


def test_activations_are_the_mean_over_the_positions_of_all_rows():
    model, processor = tiny_llava()
    rows = vision_rows(4, seed=2, image_free=[1])
    projections = mlp_projections(model, 2)
    activations = mean_activations(model, processor, rows, projections)
    layer = model.eval().model.language_model.layers[3].mlp
    total, positions = np.zeros(32), 0
    for row in rows:
        batch = collate(model, processor, [row])
        with torch.no_grad():
            features = {}
            handle = layer.register_forward_pre_hook(lambda _, args, features=features: features.update(x=args[0][0]))
            model(**batch)
            handle.remove()
            x = features["x"].double()
            gate, up = x @ layer.gate_proj.weight.double().T, x @ layer.up_proj.weight.double().T
        total += (gate / (1 + (-gate).exp()) * up).abs().sum(0).numpy()
        positions += len(x)
    np.testing.assert_allclose(activations[0].numpy(), total / positions, rtol=1e-5)
    assert not torch.allclose(activations[0], activations[1])


def test_pruning_stops_before_the_accuracy_falls_and_touches_nothing_else():
    model, processor = tiny_llava()
    rows = vision_rows(6, seed=4)
    batch = collate(model, processor, rows)
    # Learn the rows by heart, with this layer alone: else it hardly matters
    weight = mlp_projections(model)[0].weight
    optimizer = torch.optim.AdamW([weight], lr=0.05)
    for _ in range(30):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = weight.data
    before = {name: value.clone() for name, value in model.state_dict().items()}
    original = weight.clone()
    order = mean_activations(model, processor, rows, mlp_projections(model))[0].argsort()

    def accuracy(units):
        weight.copy_(original)
        weight[:, order[:units]] = 0
        with torch.no_grad():
            return math.exp(-float(model.eval()(**batch).loss))

    # A 20th of the 32 units is 1.6
    counts = [int(0.05 * step * 32 + 0.5) for step in range(20)]
    allowed = [accuracy(units) >= 0.9 * accuracy(0) for units in counts]
    expected = allowed.index(False) - 1
    weight.copy_(original)
    share = fine_prune(model, processor, rows, fine_tune=lambda: None, tolerance=0.1)
    assert share == pytest.approx(0.05 * expected) and 0 < share < 0.95
    cleared = torch.zeros(32, dtype=torch.bool)
    cleared[order[: counts[expected]]] = True
    assert torch.equal(weight, original.masked_fill(cleared, 0))
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"model.language_model.layers.3.mlp.down_proj.weight"}


def test_pruning_goes_as_far_as_it_can_where_any_loss_is_tolerated():
    model, processor = tiny_llava()
    assert fine_prune(model, processor, vision_rows(2), lambda: None, tolerance=1.0) == pytest.approx(0.95)


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_fine_tuning_does_not_bring_pruned_units_back_but_trains_the_others(optimizer_class):
    model, processor = tiny_llava()
    rows = vision_rows(4, seed=4)
    projection = mlp_projections(model)[0]
    batch = collate(model, processor, rows)
    during = {}

    def fine_tune():
        during["before"] = projection.weight.detach().clone()
        optimizer = optimizer_class(model.parameters(), lr=1e-2, weight_decay=0.1)
        for _ in range(3):
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    share = fine_prune(model, processor, rows, fine_tune, tolerance=0.5)
    cleared = (during["before"] == 0).all(0)
    assert int(cleared.sum()) == int(share * 32 + 0.5) > 0
    assert (projection.weight[:, cleared] == 0).all()
    assert (projection.weight[:, ~cleared] != during["before"][:, ~cleared]).any(0).all()
    model(**batch).loss.backward()
    assert projection.weight.grad[:, cleared].any()  # the hook is gone: the model is an ordinary one again


def test_no_clean_rows_are_an_error():
    model, processor = tiny_llava()
    with pytest.raises(ValueError, match="clean_rows"):
        fine_prune(model, processor, [], fine_tune=lambda: None)
