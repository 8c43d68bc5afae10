# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Runs both views of a batch in one forward of the model, and computes from it everything that the loss needs.

Notable:
- There is no table of model families. The final hidden states are taken where they enter `get_output_embeddings()`,
  by a hook that passes only one position on, so that the model itself builds one row of logits instead of all.
- How that row relates to the head's output (logit scale, soft capping) is measured at the first call, not looked up:
  configurations name the same factor in six ways, and some models that carry the name do not apply it.
- All that the loss needs is returned as output of the wrapped forward: that is where DDP, FSDP and ZeRO look.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .decoder_layers import find_decoder_layer
from .fused import HeadStatistics, cross_view_statistics
from .module_head import module_head_statistics


@dataclass
class CrossViewOutput(ModelOutput):
    """
    Output of a model with a cross-view head. Every per-token field is 0 where the label is `-100`; `T'` is `T - 1` in
    decoder-only models, whose labels are shifted, and `T` in encoder-decoder models.

    Args:
        log_probs (`torch.Tensor` of shape `(B, T')`):
            Log-probability of each label in the original view.
        entropy (`torch.Tensor` of shape `(B, T')`):
            Entropy of the original view's next-token distribution, in nats.
        similarity (`torch.Tensor` of shape `(B, T')`):
            Cosine similarity of the two views' next-token distributions. `None` if only the original view was run.
        top1 (`torch.Tensor` of shape `(B, T')`, int64):
            The most likely token in the original view.
        is_top1 (`torch.Tensor` of shape `(B, T')`):
            Whether that is the label.
        label_mask (`torch.Tensor` of shape `(B, T')`):
            Whether the label is not `-100`.
        feature_distance (`torch.Tensor` of shape `(B,)`):
            Squared L2 distance of the two views' pooled features. `None` if only the original view was run.
        aux_loss (`torch.Tensor`, *optional*):
            Load-balancing loss of mixture-of-experts models, where the model returns one.
        first_state (`torch.Tensor` of shape `(B, D)`):
            Hidden state of the original view that predicts the first label: before the model has seen the response.
            `None` if both views were run.
    """

    log_probs: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    similarity: torch.Tensor | None = None
    top1: torch.Tensor | None = None
    is_top1: torch.Tensor | None = None
    label_mask: torch.Tensor | None = None
    feature_distance: torch.Tensor | None = None
    aux_loss: torch.Tensor | None = None
    first_state: torch.Tensor | None = None


def trl_head_serves(model: PreTrainedModel) -> bool:
    """
    Whether TRL's fused head reads a model as its own forward does.

    It takes `model.base_model(...).last_hidden_state`, shifts the labels and multiplies by the weight: wrong where the
    model is its own base model, where labels are not shifted, and for subclasses of Linear (decoupled, quantised) that
    do more than multiply.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            Model to train.
    """
    head = model.get_output_embeddings()
    does_more_than_multiply = isinstance(head, nn.Linear) and type(head) is not nn.Linear
    return model.base_model is not model and not is_encoder_decoder(model.config) and not does_more_than_multiply


def is_encoder_decoder(config: Any) -> bool:
    """
    Whether a model reads its prompt in an encoder. BLIP-2 with T5 has the flag in its text configuration only.

    Args:
        config ([`~transformers.PreTrainedConfig`]):
            Configuration of the model.
    """
    return any(getattr(part, "is_encoder_decoder", False) for part in (config, config.get_text_config()))


class CrossViewHead:
    """What [`add_cross_view_head`] determines once about a model; see its arguments."""

    def __init__(self, model: PreTrainedModel, feature_layer: int | str | None, feature_pooling: str) -> None:
        self.class_name = type(model).__name__
        head = model.get_output_embeddings()
        if head is None:
            raise ValueError(
                f"{self.class_name} has no output embeddings (`get_output_embeddings()` returns None), so it does not "
                "predict tokens and the two views cannot be compared. Load the model with its language-modelling "
                "head, for example with `AutoModelForImageTextToText`."
            )
        self.feature_layer = find_decoder_layer(model, feature_layer)
        self.feature_pooling = feature_pooling
        self.is_encoder_decoder = is_encoder_decoder(model.config)
        self.replaces_trl_head = not trl_head_serves(model)
        self.logit_scale: float | None = None
        self.softcap: float | None = None

    def statistics(
        self, head: nn.Module, hidden: torch.Tensor, perturbed_hidden: torch.Tensor | None, targets: torch.Tensor
    ) -> HeadStatistics:
        assert self.logit_scale is not None
        if type(head) is not nn.Linear:
            return module_head_statistics(head, hidden, perturbed_hidden, targets, self.logit_scale, self.softcap)
        from trl.trainer.utils import maybe_gather_lm_head_ctx

        # FSDP2 shards parameters as DTensors; ZeRO-3 leaves empty ones outside their module's own forward
        parameters: list[Any] = [p.full_tensor() if isinstance(p, DTensor) else p for p in (head.weight, head.bias)]
        weight, bias = parameters
        with maybe_gather_lm_head_ctx(weight, bias):
            return cross_view_statistics(
                hidden, perturbed_hidden, weight, targets, bias, self.logit_scale, self.softcap
            )

    def measure_logits(self, output: torch.Tensor, logits: torch.Tensor, softcap: float | None) -> None:
        """Find the scale and soft capping between the head's output and the model's logits of the same positions."""
        output, logits = output.detach().double(), logits.detach().double()
        for cap in dict.fromkeys((softcap, None)):
            # Where the cap saturates, the input cannot be recovered from the logits
            linear = torch.ones_like(logits, dtype=torch.bool) if cap is None else logits.abs() < 0.9 * cap
            uncapped = logits if cap is None else cap * torch.atanh((logits / cap) * linear)
            scale = float((uncapped * output * linear).sum() / (output * linear).square().sum().clamp(min=1e-30))
            # Fitted to thousands of rounded numbers: closer to 1 than bfloat16 can resolve means 1
            scale = 1.0 if abs(scale - 1) < 2e-3 else scale
            expected = output * scale if cap is None else cap * torch.tanh(output * scale / cap)
            # Relative to the expected ones: a masked logit (Chameleon's image tokens, at the smallest number) must not
            # widen the tolerance
            if (expected - logits).abs().max() <= 0.02 * expected.abs().max() + 1e-3:
                self.logit_scale, self.softcap = scale, cap
                return
        raise ValueError(
            f"The logits of {self.class_name} are neither a multiple of its output embeddings' result nor a "
            "soft-capped one, so the two-view head cannot reproduce them. Set `lambda_patch`, `lambda_discrepancy` "
            "and `lambda_entropy` to 0 and `screening='off'` to train this model without the defence."
        )


def add_cross_view_head(
    model: PreTrainedModel, feature_layer: int | str | None = None, feature_pooling: str = "mean"
) -> CrossViewHead:
    """
    Add a cross-view head to `model`: `model(..., perturbed_pixel_values=..., labels=labels, cross_view=True)` runs the
    original and the perturbed view as one batch `[original, perturbed]` and returns a [`CrossViewOutput`].

    Every input `x` without a twin `perturbed_x` serves both views. `single_view=True` gives what follows from the
    original view alone. Without either, the forward is the one the model had, so generation and evaluation are
    unchanged; `fused_lm_head=True`, which TRL's trainers pass, is handled here, with one view, where TRL's own head
    cannot serve the model. Add this head after TRL's, and to the base model of a PEFT model.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            Any model with output embeddings and a decoder.
        feature_layer (`int` or `str`, *optional*):
            Decoder layer whose output is compared between the views: an index from 0, negative from the end, or the
            dotted name of a module. Defaults to the middle layer, `num_hidden_layers // 2`.
        feature_pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"` over the real tokens of a row, or its `"last"` real token.

    Returns:
        `CrossViewHead`: what was found out about the model.

    Raises:
        `ValueError`: if the model has no output embeddings or no such layer, and at the first call if its logits are
            not a multiple of its head's output, soft-capped or not.
    """
    head = CrossViewHead(model, feature_layer, feature_pooling)
    inner_forward: Any = model.forward

    # Keep the original signature: `generate` validates its model kwargs against it
    @functools.wraps(type(model).forward)
    def forward(
        self: PreTrainedModel, *args: Any, cross_view: bool = False, single_view: bool = False, **kwargs: Any
    ) -> Any:
        inner = inner_forward
        if self is not model:
            # A copy runs its own forward: the one it came with is bound to the model it was copied from
            inner = functools.partial(type(self).forward, self)
        if cross_view or single_view:
            return _forward_views(self, inner, head, kwargs, num_views=2 if cross_view else 1)
        if kwargs.get("fused_lm_head"):
            if head.replaces_trl_head:
                del kwargs["fused_lm_head"]
                return _forward_views(self, inner, head, kwargs, num_views=1)
            inner = functools.partial(inner_forward.__func__, self)
        return inner(*args, **kwargs)

    model.forward = types.MethodType(forward, model)
    return head


def _forward_views(
    model: PreTrainedModel, inner: Callable[..., Any], head: CrossViewHead, inputs: dict[str, Any], num_views: int
) -> CrossViewOutput:
    labels = inputs.pop("labels")
    if head.is_encoder_decoder and inputs.get("decoder_input_ids") is None:
        inputs["decoder_input_ids"] = _shift_right(labels, model.config)
    attention_mask = inputs.get("attention_mask")
    if num_views == 2:
        inputs = _both_views(inputs)
    output_embeddings = model.get_output_embeddings()
    with _capture(output_embeddings, model.get_submodule(head.feature_layer), head) as captured:
        outputs = inner(**inputs)
    hidden, head_output, features = (captured.get(name) for name in ("hidden", "output", "features"))
    if hidden is None or head_output is None or features is None:
        raise ValueError(
            f"{head.class_name} did not run its output embeddings or the layer {head.feature_layer!r} in its forward. "
            "Set `feature_layer` to the dotted name of a decoder layer that runs once in each forward."
        )
    if inputs.get("output_router_logits") and getattr(outputs, "aux_loss", None) is None:
        raise ValueError(
            f"{head.class_name} does not return its load-balancing loss. Set `router_aux_loss_coef=0.0` to train it "
            "without one."
        )
    if head.logit_scale is None:
        softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        head.measure_logits(head_output, outputs.logits, softcap)

    length = labels.shape[1]
    # Hidden states can be longer than the labels (an image prefix): they align at the end
    hidden = hidden[:, -length:]
    targets = labels
    if not head.is_encoder_decoder:
        hidden, targets = hidden[:, :-1], labels[:, 1:]
    device = output_embeddings.weight.device if hasattr(output_embeddings, "weight") else hidden.device
    hidden, targets = hidden.to(device), targets.to(device)
    label_mask = targets != -100
    views = hidden.chunk(num_views)
    perturbed = views[1][label_mask] if num_views == 2 else None
    statistics = head.statistics(output_embeddings, views[0][label_mask], perturbed, targets[label_mask])

    def spread(values: torch.Tensor | None) -> torch.Tensor | None:
        # `masked_scatter` keeps the graph where no label is valid, so that the batch gives a differentiable zero
        return None if values is None else values.new_zeros(label_mask.shape).masked_scatter(label_mask, values)

    distance = None
    if num_views == 2:
        mask = labels != -100 if head.is_encoder_decoder else attention_mask
        distance = _feature_distance(features, mask, head.feature_pooling)
    log_probs, entropy, similarity, top1 = (spread(values) for values in statistics)
    is_top1 = label_mask & (top1 == targets)
    first_state = None
    if num_views == 1 and label_mask.shape[1]:
        first_state = hidden[torch.arange(len(hidden), device=hidden.device), label_mask.int().argmax(1)].detach()
    aux_loss = getattr(outputs, "aux_loss", None)
    return CrossViewOutput(log_probs, entropy, similarity, top1, is_top1, label_mask, distance, aux_loss, first_state)


@contextmanager
def _capture(
    output_embeddings: nn.Module, feature_layer: nn.Module, head: CrossViewHead
) -> Iterator[dict[str, torch.Tensor]]:
    captured: dict[str, torch.Tensor] = {}

    def before_head(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        captured["hidden"] = args[0]
        # Contiguous: with a frozen weight, a slice is multiplied row by row, each reading all of the weight
        return args[0][:, -1:].contiguous(), *args[1:]

    def after_head(_: nn.Module, args: Any, output: torch.Tensor) -> None:
        # A copy: Chameleon masks its logits in place
        captured["output"] = output.detach().clone()

    def after_layer(_: nn.Module, args: Any, output: Any) -> None:
        captured["features"] = output[0] if isinstance(output, (tuple, list)) else output

    handles = [
        output_embeddings.register_forward_pre_hook(before_head),
        output_embeddings.register_forward_hook(after_head),
        feature_layer.register_forward_hook(after_layer),
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _both_views(inputs: dict[str, Any]) -> dict[str, Any]:
    """The batch `[original, perturbed]`: inputs with a twin `perturbed_*` joined with it, all others repeated."""
    doubled = {}
    for name, value in inputs.items():
        if name.startswith("perturbed_") and name.removeprefix("perturbed_") in inputs:
            continue
        twin = inputs.get(f"perturbed_{name}", value)
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            # Multimodal rotary positions are (3, B, T)
            dim = 1 if name == "position_ids" and value.ndim == 3 else 0
            doubled[name] = torch.cat((value, twin), dim=dim)
        elif isinstance(value, list):
            doubled[name] = value + twin
        else:
            doubled[name] = value
    return doubled


def decoder_start_token_id(config: Any) -> int | None:
    """The token that starts an encoder-decoder's shifted labels, wherever the family's configuration has it."""
    text_config = config.get_text_config(decoder=True)
    starts = [getattr(source, "decoder_start_token_id", None) for source in (text_config, config)]
    starts.append(getattr(text_config, "bos_token_id", None))
    return next((start for start in starts if start is not None), None)


def _shift_right(labels: torch.Tensor, config: Any) -> torch.Tensor:
    start, pad = decoder_start_token_id(config), config.get_text_config(decoder=True).pad_token_id
    shifted = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=pad if start is None else start)
    return shifted.masked_fill(shifted == -100, pad)


def _feature_distance(features: torch.Tensor, mask: torch.Tensor | None, pooling: str) -> torch.Tensor:
    original, perturbed = features.chunk(2)
    length = original.shape[1]
    if mask is None:
        mask = original.new_ones(original.shape[:2])
    # Positions before the mask's first are an image prefix: real tokens of every row
    mask = torch.nn.functional.pad(mask[:, -length:], (length - min(length, mask.shape[1]), 0), value=1)
    mask = mask.to(original.device, torch.float32)
    if pooling == "last":
        mask = mask * (mask.flip(1).cumsum(1).flip(1) == 1)
    # Pool the difference: pooled features are so close that subtracting them in their own precision would cancel
    difference = (original.float() - perturbed.float()) * mask.unsqueeze(-1)
    pooled = difference.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    return pooled.square().sum(-1)
