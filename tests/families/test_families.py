# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Every family of transformers that can be built small: what is measured is what docs/families.md says.

Notable: the document holds for the minor version of transformers that it names. On another one it is not compared;
the slow tests say when it has to be made again.
"""

import functools
from pathlib import Path
from typing import Any

import pytest
from family_checks import CHECKS, YES, check_loss, measure
from family_models import OWN
from family_processors import NEED_TORCHVISION, PROCESSED
from family_table import DOCUMENT, ESSENTIAL, FAMILIES, measure_family, measured_version, parse, render, unmeasured
from transformers import __version__
from transformers.utils import is_torchvision_available

import cvreg_trainer.head.cross_view_head


DOCUMENTED = parse(DOCUMENT.read_text())
MEASURED_ON = measured_version(DOCUMENT.read_text())
documented_version = pytest.mark.skipif(
    __version__.split(".")[:2] != MEASURED_ON.split(".")[:2],
    reason=f"docs/families.md was measured on transformers {MEASURED_ON}; this is {__version__}",
)
# One family of each kind: a processor's, a collate function's, an encoder-decoder, image states apart from the text
KINDS = ("llava", "qwen2_vl", "florence2", "mllama")
ASKED_FOR = """llava llava_next llava_onevision vipllava instructblip idefics idefics2 idefics3 smolvlm mllama qwen2_vl
qwen2_5_vl qwen3_vl paligemma gemma3 internvl mistral3 aya_vision kosmos-2 git florence2""".split()
ASKED_FOR += ["blip-2 (OPT)", "blip-2 (T5)", "llava (Pixtral tower)"]


def kind(result: str) -> str:
    """A result without the words of an error, which belong to versions."""
    return ": ".join(result.split(": ")[: 2 if "itself" in result else 1])


@documented_version
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.lowest if name in KINDS else ()) for name in FAMILIES]
)
def test_essentials_are_as_documented(name: str) -> None:
    measured = measure_family(name, ESSENTIAL)
    assert {check: kind(measured[check]) for check in ESSENTIAL} == {
        check: kind(DOCUMENTED[name][check]) for check in ESSENTIAL
    }


@documented_version
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_rest_is_as_documented(name: str) -> None:
    checks = [check for check in CHECKS if check not in ESSENTIAL]
    measured = measure_family(name, checks)
    assert {check: kind(measured[check]) for check in checks} == {
        check: kind(DOCUMENTED[name][check]) for check in checks
    }


def test_the_document_has_every_family() -> None:
    assert list(DOCUMENTED) == list(FAMILIES) and not set(OWN) & set(PROCESSED)
    working = [name for name, results in DOCUMENTED.items() if results["loss and gradient"] == YES]
    assert len(working) >= 50 and {name.replace("_(", " (").replace("l_t", "l t") for name in ASKED_FOR} <= set(
        working
    )


def test_the_document_is_read_as_it_is_written() -> None:
    results = {name: DOCUMENTED[name] for name in ("blip", "llama4", "llava", "mllama")}
    assert parse(render(results, dict.fromkeys(results, "pixels"))) == results


@pytest.mark.slow
def test_the_document_is_of_today_and_names_the_classes_it_leaves_out() -> None:
    assert __version__ == MEASURED_ON, "make docs/families.md again: python tests/families/make_table.py"
    assert DOCUMENT.read_text().rstrip().endswith(", ".join(unmeasured()))


@pytest.mark.parametrize("name", ["blip", "pi0"])
def test_models_without_output_embeddings_are_refused_at_construction(name: str, tmp_path: Path) -> None:
    result = measure(FAMILIES[name](), "same tokens", tmp_path)
    assert "has no output embeddings (`get_output_embeddings()` returns None)" in result


def test_logits_that_the_model_masks_are_refused() -> None:
    result = measure_family("chameleon", ["loss and gradient"])["loss and gradient"]
    assert result.startswith("refused: The logits of ChameleonForConditionalGeneration are neither a multiple")


def test_a_missing_load_balancing_loss_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    victim = FAMILIES["qwen3_vl_moe"]()
    forward = type(victim.model).forward

    @functools.wraps(forward)
    def without_it(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        outputs.aux_loss = None
        return outputs

    assert measure(victim, "LoRA", tmp_path) == YES
    monkeypatch.setattr(type(victim.model), "forward", without_it)
    result = measure(victim, "LoRA", tmp_path)
    assert result.startswith("refused: Qwen3VLMoeForConditionalGeneration does not return its load-balancing loss")


@pytest.mark.skipif(not is_torchvision_available(), reason="these processors need torchvision, which is not installed")
@pytest.mark.parametrize("name", NEED_TORCHVISION)
@pytest.mark.parametrize("check", ESSENTIAL)
def test_processors_that_need_torchvision(name: str, check: str, tmp_path: Path) -> None:
    assert measure(NEED_TORCHVISION[name](), check, tmp_path) == YES


@pytest.mark.parametrize("mistake", ["layer", "image", "pooling"])
def test_the_check_finds_mistakes(mistake: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    head = cvreg_trainer.head.cross_view_head
    if mistake == "layer":
        find = head.find_decoder_layer
        monkeypatch.setattr(head, "find_decoder_layer", lambda model, layer: find(model, 0))
    elif mistake == "image":
        both = head._both_views
        monkeypatch.setattr(
            head,
            "_both_views",
            lambda inputs: both({**inputs, "perturbed_pixel_values": inputs["pixel_values"] * 0.9}),
        )
    else:
        distance = head._feature_distance
        monkeypatch.setattr(head, "_feature_distance", lambda states, mask, pooling: distance(states, mask, "last"))
    with pytest.raises(AssertionError, match="not close"):
        check_loss(FAMILIES["llava"](), tmp_path)
