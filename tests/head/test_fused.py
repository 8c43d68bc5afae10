# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The fused head against the plain formula: values, gradients, precision in bfloat16, odd shapes, empty batches."""

import pytest
import torch
from torch import nn

from cvreg_trainer.head import cross_view_statistics, module_head_statistics
from cvreg_trainer.head import fused as cross_view


VOCAB, DIM = 37, 5


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(cross_view, "TOKEN_TILE", 4)
    monkeypatch.setattr(cross_view, "VOCAB_TILE", 8)


def inputs(num_tokens=11, dtype=torch.float64, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, factor=1.0):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64) * factor
        return values.to(dtype).requires_grad_()

    hidden = draw(num_tokens, DIM, factor=spread)
    perturbed = draw(num_tokens, DIM, factor=spread)
    targets = torch.randint(VOCAB, (num_tokens,), generator=generator)
    return hidden, perturbed, draw(VOCAB, DIM), targets, draw(VOCAB)


def plain(hidden, perturbed, weight, targets, bias=None, logit_scale=1.0, softcap=None):
    """The definitions in float64, with the logits in full."""

    def distribution(states):
        z = states.double() @ weight.double().t() * logit_scale
        z = z if bias is None else (states.double() @ weight.double().t() + bias.double()) * logit_scale
        return (z if softcap is None else softcap * torch.tanh(z / softcap)).softmax(-1)

    p, p_perturbed = distribution(hidden), distribution(perturbed)
    log_probs = p.gather(-1, targets[:, None])[:, 0].log()
    entropy = -(p * p.log()).sum(-1)
    similarity = (p * p_perturbed).sum(-1) / (p.norm(dim=-1) * p_perturbed.norm(dim=-1))
    return log_probs, entropy, similarity, p.argmax(-1)


@pytest.mark.parametrize("options", [{}, {"logit_scale": 0.3}, {"softcap": 2.0}, {"logit_scale": 1.7, "softcap": 3.0}])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_the_definitions(options, with_bias):
    hidden, perturbed, weight, targets, bias = inputs()
    options = {**options, "bias": bias if with_bias else None}
    for ours, reference in zip(
        cross_view_statistics(hidden, perturbed, weight, targets, **options),
        plain(hidden, perturbed, weight, targets, **options),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradients_by_finite_differences(softcap):
    hidden, perturbed, weight, targets, bias = inputs(num_tokens=6)

    def outputs(*tensors):
        return cross_view_statistics(*tensors[:3], targets, tensors[3], 0.8, softcap)[:3]

    assert torch.autograd.gradcheck(outputs, (hidden, perturbed, weight, bias))


def test_single_view_gradients_by_finite_differences():
    hidden, _, weight, targets, bias = inputs(num_tokens=6)

    def outputs(hidden, weight, bias):
        log_probs, entropy, similarity, _ = cross_view_statistics(hidden, None, weight, targets, bias)
        assert similarity is None
        return log_probs, entropy

    assert torch.autograd.gradcheck(outputs, (hidden, weight, bias))


def test_large_logits_neither_overflow_nor_underflow():
    hidden, perturbed, weight, targets, bias = inputs(dtype=torch.float32, spread=300.0)
    statistics = cross_view_statistics(hidden, perturbed, weight, targets, bias)
    sum(part.sum() for part in statistics[:3]).backward()
    for tensor in (*statistics[:3], hidden.grad, perturbed.grad, weight.grad, bias.grad):
        assert torch.isfinite(tensor).all()
    log_p = (hidden.double() @ weight.double().t() + bias.double()).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(statistics.log_probs.double(), log_p, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("num_tokens", [1, 7, 64])
def test_bfloat16_error_is_no_larger_than_the_naive_computations(num_tokens):
    hidden, perturbed, weight, targets, bias = inputs(num_tokens, torch.bfloat16, seed=1, spread=2.0)
    tensors = (hidden, perturbed, weight, bias)

    def gradients(values):
        weights = [torch.linspace(0.5, 1.5, num_tokens, dtype=torch.float64).to(v.dtype) for v in values]
        loss = sum((v * w).sum() for v, w in zip(values, weights, strict=True))
        return torch.autograd.grad(loss, tensors)

    def naive():
        z, z_perturbed = hidden @ weight.t() + bias, perturbed @ weight.t() + bias
        log_p, p, q = z.log_softmax(-1), z.softmax(-1), z_perturbed.softmax(-1)
        return log_p.gather(-1, targets[:, None])[:, 0], -(p * log_p).sum(-1), torch.cosine_similarity(p, q, dim=-1)

    exact = plain(hidden, perturbed, weight, targets, bias)[:3]
    ours, rough = cross_view_statistics(hidden, perturbed, weight, targets, bias)[:3], naive()
    pairs = list(zip(ours, rough, exact, strict=True))
    pairs += list(zip(gradients(ours), gradients(rough), gradients(exact), strict=True))
    for mine, other, truth in pairs:
        error, naive_error = ((x.double() - truth.double()).norm() for x in (mine, other))
        assert error <= naive_error * 1.05 + 1e-6


def test_no_tokens_give_a_differentiable_zero():
    hidden, perturbed, weight, targets, bias = inputs(num_tokens=0)
    statistics = cross_view_statistics(hidden, perturbed, weight, targets, bias)
    sum(part.sum() for part in statistics[:3]).backward()
    assert all(len(part) == 0 for part in statistics)
    assert weight.grad.abs().sum() == 0 and bias.grad.abs().sum() == 0


def test_first_of_tied_words_is_the_top_one():
    hidden = torch.ones(2, 1)
    weight = torch.zeros(VOCAB, 1)
    weight[[5, 30]] = 1.0
    statistics = cross_view_statistics(hidden, None, weight, torch.tensor([5, 30]))
    assert statistics.top1.tolist() == [5, 5]


def test_under_autocast_the_projection_runs_in_the_autocast_dtype():
    hidden, perturbed, weight, targets, bias = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        statistics = cross_view_statistics(hidden, perturbed, weight, targets, bias)
    rounded = cross_view_statistics(*(t.bfloat16() for t in (hidden, perturbed, weight)), targets, bias.bfloat16())
    assert statistics.log_probs.dtype == torch.float32
    torch.testing.assert_close(statistics.log_probs, rounded.log_probs)


@pytest.mark.parametrize("two_views", [False, True])
def test_module_head_equals_the_fused_head(two_views, monkeypatch):
    from cvreg_trainer.head import module_head

    monkeypatch.setattr(module_head, "TOKEN_TILE", 4)
    hidden, perturbed, weight, targets, bias = inputs()
    head = nn.Linear(DIM, VOCAB, dtype=torch.float64)
    head.weight.data, head.bias.data = weight.data.clone(), bias.data.clone()
    perturbed = perturbed if two_views else None
    ours = module_head_statistics(head, hidden, perturbed, targets, 0.7, 3.0)
    fused = cross_view_statistics(hidden, perturbed, weight, targets, bias, 0.7, 3.0)
    for mine, other in zip(ours, fused, strict=True):
        torch.testing.assert_close(mine, other)
    sum(part.sum() for part in ours[:3] if part is not None).backward()
    sum(part.sum() for part in fused[:3] if part is not None).backward()
    torch.testing.assert_close(head.weight.grad, weight.grad)
    torch.testing.assert_close(head.bias.grad, bias.grad)
