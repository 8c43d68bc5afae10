# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Equation 16: the hinge, which positions count, and where its gradient goes."""

import pytest
import torch

from cvreg_trainer.losses import entropy_loss


def test_shortfall_below_the_threshold_over_valid_tokens():
    entropy = torch.tensor([[0.05, 0.3, 0.0], [0.15, 0.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    expected = (0.15 + 0 + 0.05 + 0.2 + 0) / 5
    assert entropy_loss(entropy, mask, 0.2, 5).item() == pytest.approx(expected)


def test_gradient_only_below_the_threshold():
    entropy = torch.tensor([[0.1, 0.3, 0.1]], requires_grad=True)
    entropy_loss(entropy, torch.tensor([[True, True, False]]), 0.2, 2).backward()
    torch.testing.assert_close(entropy.grad, torch.tensor([[-0.5, 0.0, 0.0]]))


def test_no_valid_token_gives_a_differentiable_zero():
    entropy = torch.rand(2, 3, requires_grad=True)
    loss = entropy_loss(entropy, torch.zeros(2, 3, dtype=torch.bool), 4.0, 0)
    loss.backward()
    assert loss.item() == 0 and entropy.grad.abs().sum() == 0
