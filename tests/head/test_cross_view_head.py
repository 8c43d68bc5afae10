# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Both views in one forward: against two plain forwards with full logits, over the ways a decoder meets an image."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import (
    tiny_blip2_opt,
    tiny_blip2_t5,
    tiny_idefics,
    tiny_llava,
    tiny_mllama,
    tiny_qwen2_vl,
    tiny_text_lm,
    vision_rows,
)
from torch import nn

from cvreg_trainer.head.check import check_cross_view_head
from cvreg_trainer.head.cross_view_head import add_cross_view_head
from cvreg_trainer.head.decoder_layers import find_decoder_layer


pytestmark = pytest.mark.lowest


def processor_batch(build: Callable[[], Any], rows: int = 3) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model, and a batch of rows with ragged captions whose prompt is not supervised."""
    model, processor = build()
    # BLIP-2's processor puts the image tokens in itself
    token = "" if "Blip2" in type(processor).__name__ else getattr(processor, "image_token", "<image>")
    examples = vision_rows(rows, seed=1, style="plain", image_token=token)
    texts = [example["prompt"] + example["completion"] for example in examples]
    batch = processor(images=[e["images"] for e in examples], text=texts, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :-4] = -100
    if model.config.is_encoder_decoder:
        labels = torch.tensor([[5, 6, 7, 2], [8, 2, -100, -100], [9, 10, 2, -100]])
    return model, {**batch, "labels": labels}


FAMILIES = {
    "llava": lambda: processor_batch(tiny_llava),
    "blip2_opt": lambda: processor_batch(tiny_blip2_opt),
    "blip2_t5": lambda: processor_batch(tiny_blip2_t5),
    "mllama": lambda: processor_batch(tiny_mllama),
    "qwen2_vl": lambda: (tiny_qwen2_vl().model, tiny_qwen2_vl().make_batch(3)),
    "idefics": lambda: (tiny_idefics().model, tiny_idefics().make_batch(3)),
}


def perturb(batch: dict[str, Any]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch["pixel_values"].shape, generator=generator)
    return {"perturbed_pixel_values": batch["pixel_values"] + noise}


def reference(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Each view on its own, logits in full, in float64 from the logits on."""
    inputs = {name: value for name, value in batch.items() if not name.startswith("perturbed_") and name != "labels"}
    if model.config.is_encoder_decoder:
        inputs["labels"] = batch["labels"]
    views = [inputs, {**inputs, "pixel_values": batch["perturbed_pixel_values"]}]
    labels, shift = batch["labels"], 0 if model.config.is_encoder_decoder else 1
    logits = [model(**view).logits.double()[:, -labels.shape[1] :] for view in views]
    logits = [z[:, : labels.shape[1] - shift] for z in logits]
    targets = labels[:, shift:]
    mask = targets != -100
    p, q = (z.softmax(-1) for z in logits)
    log_probs = p.log().gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return {
        "log_probs": log_probs * mask,
        "entropy": -(p * p.log()).sum(-1) * mask,
        "similarity": (p * q).sum(-1) / (p.norm(dim=-1) * q.norm(dim=-1)) * mask,
        "top1": p.argmax(-1) * mask,
        "is_top1": (p.argmax(-1) == targets) & mask,
        "label_mask": mask,
        "loss": -(log_probs * mask).sum() / mask.sum(),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_two_plain_forwards(family: str) -> None:
    model, batch = FAMILIES[family]()
    model.eval()
    batch |= perturb(batch)
    expected = reference(model, batch)
    expected_loss = expected.pop("loss")
    if family != "idefics":  # whose own loss fails: it leaves out the additional words of its head
        original_loss = model(**{k: v for k, v in batch.items() if not k.startswith("perturbed_")}).loss
        torch.testing.assert_close(original_loss.double(), expected_loss, rtol=1e-4, atol=1e-5)
    add_cross_view_head(model)
    output = model(**batch, cross_view=True)
    for name, value in expected.items():
        ours = output[name].double() if value.is_floating_point() else output[name]
        torch.testing.assert_close(ours, value, rtol=1e-4, atol=1e-5)
    assert (output.similarity[output.label_mask] < 1 - 1e-6).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_single_view_also_where_trls_head_fails(family: str) -> None:
    model, batch = FAMILIES[family]()
    model.eval()
    loss = reference(model, batch | perturb(batch))["loss"]
    head = add_cross_view_head(model)
    output = model(**batch, single_view=True)
    torch.testing.assert_close(-output.log_probs.sum().double() / output.label_mask.sum(), loss, rtol=1e-4, atol=1e-5)
    assert head.replaces_trl_head == (family in {"blip2_opt", "blip2_t5", "idefics"})
    if head.replaces_trl_head:
        output = model(**batch, fused_lm_head=True)
        ours = -output.log_probs.sum().double() / output.label_mask.sum()
        torch.testing.assert_close(ours, loss, rtol=1e-4, atol=1e-5)
        assert output.similarity is None and output.feature_distance is None


# Re-entrant checkpointing of Mllama fails in transformers itself: its image states travel as a keyword argument
@pytest.mark.parametrize(
    ("family", "use_reentrant"), [(f, r) for f in FAMILIES for r in (False, True) if (f, r) != ("mllama", True)]
)
def test_gradients_under_checkpointing_equal_those_of_the_plain_loss(family: str, use_reentrant: bool) -> None:
    model, batch = FAMILIES[family]()
    batch |= perturb(batch)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    layer = find_decoder_layer(model)
    features: list[torch.Tensor] = []

    def keep(_: nn.Module, args: Any, output: Any) -> None:
        features.append(output[0] if isinstance(output, tuple) else output)

    handle = model.get_submodule(layer).register_forward_hook(keep)
    expected = reference(model, batch)
    handle.remove()
    mask = batch["labels"] != -100 if model.config.is_encoder_decoder else batch["attention_mask"]
    pooled = [
        torch.stack([states[-mask.shape[1] :][row == 1].mean(0) for states, row in zip(view, mask, strict=True)])
        for view in features
    ]
    distance = (pooled[0] - pooled[1]).square().sum(-1)
    loss = expected["similarity"].sum() + expected["entropy"].sum() - expected["log_probs"].sum() + distance.sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    add_cross_view_head(model)
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    output = model(**batch, cross_view=True, use_cache=False)
    torch.testing.assert_close(output.feature_distance, distance, rtol=1e-3, atol=1e-6)
    ours = output.similarity.sum() + output.entropy.sum() - output.log_probs.sum() + output.feature_distance.sum()
    torch.testing.assert_close(ours.double(), loss.double(), rtol=1e-4, atol=1e-4)
    ours.backward()
    assert any("vision" in name or "visual" in name for name in gradients)
    scale = max(gradient.abs().max() for gradient in gradients.values())
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=2e-3, atol=float(scale) * 1e-5, msg=name)


@pytest.mark.parametrize("views", ["cross_view", "single_view"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_reads_one_position_in_one_piece(family: str, views: str) -> None:
    """For a strided input PyTorch multiplies row by row, and reads the whole frozen head for each."""
    model, batch = FAMILIES[family]()
    add_cross_view_head(model)
    inputs = []

    class Watched(type(model.get_output_embeddings())):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            inputs.append((states.shape[1], states.is_contiguous()))
            return super().forward(states)

    model.get_output_embeddings().__class__ = Watched  # sees what is left after every hook
    model(**batch | (perturb(batch) if views == "cross_view" else {}), **{views: True})
    assert inputs[0] == (1, True)


def test_default_layer_is_the_middle_one() -> None:
    assert find_decoder_layer(tiny_llava().model) == "model.language_model.layers.2"
    assert find_decoder_layer(tiny_blip2_opt().model) == "language_model.model.decoder.layers.2"
    assert find_decoder_layer(tiny_blip2_t5().model) == "language_model.decoder.block.1"
    assert find_decoder_layer(tiny_llava().model, -1) == "model.language_model.layers.3"
    assert find_decoder_layer(tiny_llava().model, "model.language_model.layers.0.mlp").endswith("mlp")


def test_layer_errors_name_what_there_is() -> None:
    model = tiny_llava().model
    with pytest.raises(ValueError, match="has 4 layers"):
        find_decoder_layer(model, 4)
    with pytest.raises(ValueError, match="Did you mean 'model.language_model.layers.1'"):
        find_decoder_layer(model, "model.language_model.layer.1")


def test_model_without_output_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="LlavaModel has no output embeddings"):
        add_cross_view_head(tiny_llava().model.model)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_does_not_reach_the_features(pooling: str) -> None:
    model, batch = processor_batch(tiny_llava)
    model.eval()
    add_cross_view_head(model, feature_pooling=pooling)
    batch |= perturb(batch)
    alone = {k: v[:1] for k, v in batch.items()}
    real = alone["attention_mask"].bool()[0]
    alone = {k: v[:, real] if v.ndim == 2 else v for k, v in alone.items()}
    distances = [model(**inputs, cross_view=True).feature_distance[0] for inputs in (batch, alone)]
    torch.testing.assert_close(*distances)
    assert distances[0] > 0


@pytest.mark.parametrize(
    "transform", [lambda z: z * 0.0625, lambda z: 3 * torch.tanh(z / 3), lambda z: 3 * torch.tanh(z * 2 / 3)]
)
def test_logit_scale_and_softcap_are_measured(transform: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model, batch = processor_batch(tiny_llava)
    model.config.get_text_config().final_logit_softcapping = 3.0
    head, weight = model.lm_head, model.lm_head.weight
    plain_forward = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        outputs = plain_forward(*args, **kwargs)
        outputs.logits = transform(outputs.logits)
        return outputs

    model.forward = forward
    model.eval()
    weight.data *= 20
    batch |= perturb(batch)
    expected = reference(model, batch)
    model.forward = plain_forward
    model.forward = type(model.forward)(lambda self, *args, **kwargs: forward(*args, **kwargs), model)
    add_cross_view_head(model)
    output = model(**batch, cross_view=True)
    assert model.lm_head is head
    torch.testing.assert_close(output.log_probs.double(), expected["log_probs"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(output.similarity.double(), expected["similarity"], rtol=1e-3, atol=1e-4)


def test_logits_that_are_no_multiple_of_the_head_are_refused() -> None:
    model, batch = processor_batch(tiny_llava)
    plain_forward = model.forward

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        outputs = plain_forward(*args, **kwargs)
        outputs.logits = outputs.logits.square()
        return outputs

    model.forward = type(model.forward)(forward, model)
    add_cross_view_head(model)
    with pytest.raises(ValueError, match="LlavaForConditionalGeneration are neither"):
        model(**batch, **perturb(batch), cross_view=True)


def test_rows_without_valid_labels_give_a_differentiable_zero() -> None:
    model, batch = processor_batch(tiny_llava)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    add_cross_view_head(model)
    output = model(**batch, **perturb(batch), cross_view=True)
    (output.log_probs.sum() + output.similarity.sum() + output.entropy.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.lm_head.weight.grad.abs().sum() == 0


def test_a_copy_runs_on_itself() -> None:
    model, batch = processor_batch(tiny_llava)
    model.eval()
    add_cross_view_head(model)
    batch |= perturb(batch)
    before = model(**batch, cross_view=True).log_probs
    twin = copy.deepcopy(model)
    twin.lm_head.weight.data.zero_()
    torch.testing.assert_close(model(**batch, cross_view=True).log_probs, before)
    assert not torch.allclose(twin(**batch, cross_view=True).log_probs, before)


def test_text_only_batch_and_plain_forward_stay() -> None:
    model, tokenizer = tiny_text_lm()
    batch = dict(tokenizer(["a red circle", "a blue star above a ring"], padding=True, return_tensors="pt"))
    expected = model(**batch).logits
    add_cross_view_head(model)
    torch.testing.assert_close(model(**batch).logits, expected)
    output = model(**batch, labels=batch["input_ids"], cross_view=True)
    torch.testing.assert_close(output.feature_distance, torch.zeros(2))


@pytest.mark.parametrize("family", FAMILIES)
def test_check_passes_and_leaves_the_model_training(family: str) -> None:
    model, batch = FAMILIES[family]()
    model.train()
    add_cross_view_head(model)
    check_cross_view_head(model, batch)
    assert all(module.training for module in model.modules())


def test_check_passes_over_labels_outside_the_vocabulary() -> None:
    model, batch = processor_batch(tiny_mllama)
    image_token = model.config.image_token_index
    assert image_token >= model.lm_head.out_features
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    assert (batch["labels"] == image_token).any()
    add_cross_view_head(model)
    check_cross_view_head(model, batch)


def test_check_finds_a_shifted_loss() -> None:
    model, batch = processor_batch(tiny_llava)
    add_cross_view_head(model)
    plain_loss = model.loss_function
    model.loss_function = lambda logits, labels, **kwargs: plain_loss(logits, labels.roll(1, 1), **kwargs)
    with pytest.raises(ValueError, match="does not reproduce the loss of LlavaForConditionalGeneration"):
        check_cross_view_head(model, batch)
