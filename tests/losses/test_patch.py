# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Equation 12: what is summed, what it is divided by, and the empty batch."""

import pytest
import torch

from cvreg_trainer.losses import patch_loss


def test_rows_without_an_image_do_not_count():
    distance, has_image = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([True, False, True])
    assert patch_loss(distance, has_image, 2).item() == pytest.approx((1 + 5) / 2)


def test_micro_batches_add_up_to_the_global_batch():
    distance, has_image = torch.rand(6, dtype=torch.float64), torch.tensor([1, 1, 0, 1, 0, 1]).bool()
    parts = [patch_loss(distance[s], has_image[s], 4) for s in (slice(0, 1), slice(1, 6))]
    torch.testing.assert_close(sum(parts), distance[has_image].mean())


def test_no_image_gives_a_differentiable_zero():
    distance = torch.rand(3, requires_grad=True)
    loss = patch_loss(distance, torch.zeros(3, dtype=torch.bool), 0)
    loss.backward()
    assert loss.item() == 0 and distance.grad.abs().sum() == 0
