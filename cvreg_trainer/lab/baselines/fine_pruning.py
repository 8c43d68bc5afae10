# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Prune the units that clean rows leave idle, then fine-tune on those rows: Fine-Pruning.

Source: Liu, Dolan-Gavitt and Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks" (RAID
2018). Units of the last convolution are pruned in the order of their mean activation on clean data, least first, until
the accuracy on that data falls by more than a tolerance (4 points there); then the network is fine-tuned on it. It
needs clean rows, and repairs a model after its training.

Departures, for transformers: the units are those of the MLP in the last decoder layers (the inputs of its second
projection); activation is the mean absolute value over all positions, since these units are signed; the accuracy is
the geometric mean of the probabilities of the clean responses' tokens, and the tolerance a share of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ...head.decoder_layers import find_decoder_layer
from .scoring import response_statistics


STEP = 0.05  # share of the units that is pruned before the accuracy is measured again


def fine_prune(
    model: PreTrainedModel,
    processor: Any,
    clean_rows: Any,
    fine_tune: Callable[[], object],
    num_layers: int = 1,
    tolerance: float = 0.04,
    batch_size: int = 16,
) -> float:
    """
    Prune a model and fine-tune what is left.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            A model that was trained on poisoned rows; it is changed in place. Adapters are to be merged before.
        processor, batch_size:
            As in [`response_statistics`].
        clean_rows ([`~datasets.Dataset`] or a sequence of rows):
            Rows known to be clean: they show which units are idle and how many can go.
        fine_tune (`Callable[[], object]`):
            Trains `model`, on the clean rows in the source. Pruned units get no gradient while it runs, so that any
            optimiser whose step is zero where the gradients always were leaves them pruned.
        num_layers (`int`, *optional*, defaults to `1`):
            Decoder layers to prune, counted from the end; the same share in each.
        tolerance (`float`, *optional*, defaults to `0.04`):
            Relative loss of accuracy on the clean rows at which pruning stops, before the fine-tuning.

    Returns:
        `float`: share of the units that was pruned; a multiple of 0.05.

    Raises:
        `ValueError`: if there are no such layers or no MLP is found in one, or `clean_rows` is empty.
    """
    if len(clean_rows) == 0:
        raise ValueError("`clean_rows` is empty; Fine-Pruning needs rows that are known to be clean.")
    projections = mlp_projections(model, num_layers)
    activations = mean_activations(model, processor, clean_rows, projections)
    original = [projection.weight.detach().clone() for projection in projections]

    def accuracy(share: float) -> float:
        for projection, weight, activation in zip(projections, original, activations, strict=True):
            projection.weight.data.copy_(weight)
            prune_units(projection, activation, share)
        statistics = response_statistics(model, processor, clean_rows, batch_size)
        return float(np.exp(-np.average(statistics.nll, weights=statistics.num_tokens)))

    needed = (1 - tolerance) * accuracy(0.0)
    steps = 0
    while (steps + 1) * STEP < 1 and accuracy((steps + 1) * STEP) >= needed:
        steps += 1
    accuracy(steps * STEP)
    handles = [_keep_pruned(projection) for projection in projections if projection.weight.requires_grad]
    try:
        fine_tune()
    finally:
        for handle in handles:
            handle.remove()
    return steps * STEP


def mlp_projections(model: PreTrainedModel, num_layers: int = 1) -> list[nn.Linear]:
    """
    The second projection of the MLP in each of the last decoder layers, found by shape: of the linear layers that lead
    back to the width of the model, the one with the most inputs.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            Model with a decoder.
        num_layers (`int`, *optional*, defaults to `1`):
            How many, from the last on.

    Raises:
        `ValueError`: if there are fewer layers, or a layer has no such projection in full precision.
    """
    if num_layers < 1:
        raise ValueError(f"`num_layers={num_layers}` must be at least 1.")
    width = model.config.get_text_config(decoder=True).hidden_size
    projections = []
    for index in range(-1, -num_layers - 1, -1):
        try:
            name = find_decoder_layer(model, index)
        except ValueError as error:
            raise ValueError(f"`num_layers={num_layers}` is too many. {error}") from error
        # Quantised layers are subclasses, whose packed weights have no columns to clear
        linear = [module for module in model.get_submodule(name).modules() if type(module) is nn.Linear]
        wide = [module for module in linear if module.out_features == width < module.in_features]
        if not wide:
            raise ValueError(
                f"No MLP of plain linear layers was found in {name!r} of {type(model).__name__}. Fine-Pruning needs "
                "one: merge adapters, load the model unquantised; mixtures of experts are not supported."
            )
        projections.append(max(wide, key=lambda module: module.in_features))
    return projections


def mean_activations(
    model: PreTrainedModel, processor: Any, rows: Any, projections: list[nn.Linear]
) -> list[torch.Tensor]:
    """
    Mean absolute activation of each unit over all positions of some rows.

    Args:
        model, processor, rows:
            As in [`response_statistics`].
        projections (`list[nn.Linear]`):
            Layers whose inputs are the units.

    Returns:
        `list[torch.Tensor]`: for each projection its units' activations, float64, of shape `(in_features,)`.
    """
    sums = [torch.zeros(projection.in_features, dtype=torch.float64) for projection in projections]
    positions = [0] * len(projections)

    def add(index: int, inputs: torch.Tensor) -> None:
        units = inputs.detach().flatten(0, -2)
        sums[index] += units.abs().double().sum(0).cpu()
        positions[index] += len(units)

    handles = [
        projection.register_forward_pre_hook(lambda _, args, index=index: add(index, args[0]))
        for index, projection in enumerate(projections)
    ]
    try:
        # One row at a time: no padding, whose activations mean nothing
        response_statistics(model, processor, rows, batch_size=1)
    finally:
        for handle in handles:
            handle.remove()
    return [total / max(number, 1) for total, number in zip(sums, positions, strict=True)]


@torch.no_grad()
def prune_units(projection: nn.Linear, activation: torch.Tensor, share: float) -> torch.Tensor:
    """
    Clear the weights of the least active inputs of a layer.

    Args:
        projection (`nn.Linear`):
            Layer; it is changed in place.
        activation (`torch.Tensor` of shape `(in_features,)`):
            Mean activation of each input.
        share (`float`):
            Share of the inputs to clear; the number is rounded to the nearest.

    Returns:
        `torch.Tensor`: the numbers of the inputs that were cleared, least active first.
    """
    idle = activation.argsort(stable=True)[: int(share * len(activation) + 0.5)].to(projection.weight.device)
    projection.weight[:, idle] = 0
    return idle


def _keep_pruned(projection: nn.Linear) -> Any:
    kept = (projection.weight != 0).any(0)  # (in_features,)
    return projection.weight.register_hook(lambda gradient: gradient * kept.to(gradient.device))
