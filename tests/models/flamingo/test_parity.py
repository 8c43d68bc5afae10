# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Our Flamingo against what OpenFlamingo's and Otter's own code computed in float64 (golden/, made by make_golden.py).

Notable: in float64 no rounding hides a difference; Llama alone is held to 1e-6, since its rotary embedding stays in
float32. In float32 the tolerance is our own rounding, which is largest for MPT-1B.
"""

from pathlib import Path

import pytest
import torch
from published_checkpoints import OPENFLAMINGO, OTTER, convert, read_golden

from cvreg_trainer.models.flamingo import FlamingoForConditionalGeneration


pytestmark = pytest.mark.lowest
INPUTS = ("input_ids", "attention_mask", "labels", "pixel_values")


@pytest.mark.parametrize("name", [*OPENFLAMINGO, *OTTER])
def test_logits_and_loss_are_the_references_in_float64(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # transformers' MPT takes its softmax in what `float` returns, where the least float64 is minus infinity
    to_float = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self if self.dtype == torch.float64 else to_float(self))
    model = FlamingoForConditionalGeneration.from_pretrained(convert(name, tmp_path), dtype=torch.float64).eval()
    golden = read_golden(name)[0]
    with torch.no_grad():
        output = model(**{key: golden[key] for key in INPUTS})
    real = golden["attention_mask"].bool()
    tolerance = 1e-6 if "llama" in name else 1e-10
    torch.testing.assert_close(output.logits[real], golden["logits"][real], rtol=0, atol=tolerance)
    torch.testing.assert_close(output.loss, golden["loss"][0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [*OPENFLAMINGO, *OTTER])
def test_logits_loss_and_greedy_tokens_are_the_references(name: str, tmp_path: Path) -> None:
    model = FlamingoForConditionalGeneration.from_pretrained(convert(name, tmp_path)).eval()
    golden = read_golden(name)[0]
    with torch.no_grad():
        output = model(**{key: golden[key] for key in INPUTS})
    real = golden["attention_mask"].bool()
    torch.testing.assert_close(output.logits[real].double(), golden["logits"][real], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.loss.double(), golden["loss"][0], rtol=1e-4, atol=1e-4)
    prompt = golden["input_ids"][:1]
    for use_cache in (True, False):
        tokens = model.generate(
            input_ids=prompt,
            pixel_values=golden["pixel_values"][:1],
            max_new_tokens=golden["greedy"].shape[1],
            no_repeat_ngram_size=1,
            eos_token_id=None,
            use_cache=use_cache,
        )
        assert tokens[0, prompt.shape[1] :].tolist() == golden["greedy"][0].tolist()


def test_the_references_cover_all_language_models_and_both_layouts() -> None:
    models = {name.removeprefix("openflamingo_") for name in OPENFLAMINGO}
    assert models == {"gpt_neox", "llama", "mpt", "mpt_1b", "opt"}
    assert {name.removeprefix("otter_") for name in OTTER} == {"llama", "llama_video", "mpt", "mpt_1b"}


@pytest.mark.parametrize("name", [OPENFLAMINGO[0], OTTER[0]])
def test_the_references_depend_on_the_images(name: str, tmp_path: Path) -> None:
    model = FlamingoForConditionalGeneration.from_pretrained(convert(name, tmp_path)).eval()
    golden = read_golden(name)[0]
    inputs = {key: golden[key] for key in INPUTS[:2]}
    with torch.no_grad():
        logits = model(**inputs, pixel_values=golden["pixel_values"].flip(0)).logits
    assert (logits - golden["logits"])[:2].abs().max() > 1e-2
