# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Equations 13 and 14: which positions count, what they are divided by, and the empty batch."""

import torch

from cvreg_trainer.losses import discrepancy_loss


MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool()
HAS_IMAGE = torch.tensor([True, False, True])


def test_mean_over_the_valid_tokens_of_rows_with_an_image():
    similarity = torch.rand(3, 3, dtype=torch.float64)
    chosen = torch.stack([similarity[b, t] for b in (0, 2) for t in range(3) if MASK[b, t]])
    torch.testing.assert_close(discrepancy_loss(similarity, MASK, HAS_IMAGE, 5), chosen.mean())


def test_micro_batches_add_up_to_the_global_batch():
    similarity = torch.rand(3, 3, dtype=torch.float64)
    parts = [discrepancy_loss(similarity[s], MASK[s], HAS_IMAGE[s], 5) for s in (slice(0, 2), slice(2, 3))]
    torch.testing.assert_close(sum(parts), discrepancy_loss(similarity, MASK, HAS_IMAGE, 5))


def test_no_image_gives_a_differentiable_zero():
    similarity = torch.rand(3, 3, requires_grad=True)
    loss = discrepancy_loss(similarity, MASK, torch.zeros(3, dtype=torch.bool), torch.tensor(0.0))
    loss.backward()
    assert loss.item() == 0 and similarity.grad.abs().sum() == 0
