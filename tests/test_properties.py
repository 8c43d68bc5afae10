# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What holds for any input: of perturbations, collators, configuration, words and audits."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_models import tiny_llava, tiny_tokenizer, vision_rows
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from cvreg_trainer import CrossViewDefenseConfig
from cvreg_trainer.collators.cross_view import DataCollatorForCrossView
from cvreg_trainer.data.row_images import lift_images
from cvreg_trainer.data.rows import row_digest
from cvreg_trainer.perturbations import OPERATIONS, PatchPerturbation
from cvreg_trainer.perturbations.strong import strong_view
from cvreg_trainer.screening.audit.audit import Audit
from cvreg_trainer.screening.passes.collator import DataCollatorForScreening, row_id
from cvreg_trainer.screening.passes.token_statistics import TokenStatistics
from cvreg_trainer.screening.verdict.findings import RowFinding, WordFinding
from cvreg_trainer.screening.verdict.words import find_words


FEW = settings(
    max_examples=10, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PROCESSOR = tiny_llava().processor
TOKENIZER = tiny_tokenizer()
ROWS = [lift_images(row) for row in vision_rows(12, image_free=(3, 7), several=(5,))]


def picture(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@FEW
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    low=st.floats(0.001, 1),
    share=st.floats(0, 1),
    operations=st.lists(st.sampled_from(list(OPERATIONS)), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_a_patch_changes_one_rectangle_of_the_allowed_size(
    width: int, height: int, low: float, share: float, operations: list[str], seed: int
) -> None:
    high = low + share * (1 - low)
    perturb = PatchPerturbation(low, high, operations)
    image = picture(width, height, seed)
    view = perturb(image, np.random.default_rng(seed))
    assert (view.size, view.mode) == (image.size, image.mode)
    assert view.tobytes() == perturb(image, np.random.default_rng(seed)).tobytes()
    changed = (np.asarray(view) != np.asarray(image)).any(-1)
    if changed.any():
        rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
        box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        # Sides are whole pixels: up to one more in each direction
        side = math.sqrt(high * width * height)
        assert box <= max(1, high * width * height + 3 * side + max(width, height))


@FEW
@given(width=st.integers(1, 70), height=st.integers(1, 70), seed=st.integers(0, 2**31))
def test_a_strong_view_is_a_picture_of_the_same_size(width: int, height: int, seed: int) -> None:
    image = picture(width, height, seed)
    views = [strong_view(image, np.random.default_rng(seed)) for _ in range(2)]
    assert views[0].size == image.size and views[0].tobytes() == views[1].tobytes()


def same_batch(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@FEW
@given(places=st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=5), epoch=st.integers(0, 5))
def test_views_depend_on_the_rows_alone(places: list[int], epoch: int) -> None:
    rows = [ROWS[place] for place in places]
    digests = [row_digest(row) for row in rows]
    inner = DataCollatorForVisionLanguageModeling(PROCESSOR)
    collators = [DataCollatorForCrossView(inner, PatchPerturbation(), seed=1) for _ in range(2)]
    for collator in collators:
        collator.set_epoch(epoch)
    collators[1]([ROWS[0], ROWS[1]])  # what came before has no influence
    batch = collators[0](rows)
    assert same_batch(batch, collators[1](rows))
    assert [row_digest(row) for row in rows] == digests
    assert batch["has_image"].tolist() == [bool(row["images"]) for row in rows]
    twins = {name.removeprefix("perturbed_") for name in batch if name.startswith("perturbed_")}
    assert twins == ({"pixel_values"} if batch["has_image"].any() else set())
    assert all(batch[f"perturbed_{name}"].shape == batch[name].shape for name in twins)


@FEW
@given(
    places=st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=6),
    flagged=st.sets(st.integers(0, len(ROWS) - 1)),
)
def test_flagged_rows_take_no_part(places: list[int], flagged: set[int]) -> None:
    collator = DataCollatorForScreening(DataCollatorForVisionLanguageModeling(PROCESSOR), len(ROWS), 0, False)
    names = [row_id(row_digest(row)) for row in ROWS]
    collator.flag({names[place] for place in flagged})
    batch = collator([ROWS[place] for place in places])
    kept = [place for place in places if place not in flagged]
    supervised = batch["labels"].ne(-100).any(1)
    assert [name for name, is_in in zip(batch["row_id"].tolist(), supervised.tolist(), strict=True) if is_in] == [
        names[place] for place in kept
    ]
    assert len(batch["labels"]) == max(1, len(kept))


NUMBERS = st.one_of(st.floats(), st.integers(-3, 3), st.booleans(), st.none(), st.text(max_size=3))


@FEW
@given(
    name=st.sampled_from(
        ["lambda_patch", "lambda_entropy", "entropy_threshold", "patch_area_min", "patch_area_max", "screening_cap"]
    ),
    value=NUMBERS,
)
def test_an_option_is_kept_or_refused_by_name(name: str, value: Any, tmp_path: Path) -> None:
    low, high = {"screening_cap": (0, 1), "patch_area_min": (0, 0.05), "patch_area_max": (0.01, 1)}.get(
        name, (0, math.inf)
    )
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    is_open = name in ("screening_cap", "patch_area_min")
    if is_number and (low < value if is_open else low <= value) and value <= high:
        assert getattr(CrossViewDefenseConfig(str(tmp_path), use_cpu=True, bf16=False, **{name: value}), name) == value
    else:
        with pytest.raises(ValueError, match=f"`{name}`"):
            CrossViewDefenseConfig(str(tmp_path), use_cpu=True, bf16=False, **{name: value})


@FEW
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8), seed=st.integers(0, 2**31))
def test_words_cover_each_response_once(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    number = sum(lengths)
    tokens = rng.integers(3, len(TOKENIZER), number)
    nll, entropy = rng.random((2, number)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    statistics = TokenStatistics(np.arange(len(lengths)), offsets, tokens, nll, entropy, tokens)
    found = find_words(statistics, TOKENIZER)
    for row in range(len(lengths)):
        texts = TOKENIZER.convert_ids_to_tokens(tokens[offsets[row] : offsets[row + 1]].tolist())
        expected = [text for text in texts if text not in TOKENIZER.all_special_tokens]
        words = [found.vocabulary[word] for word in found.words[found.rows == row]]
        if len(expected) > 1:
            # The response as a whole stands last
            assert words.pop() == " ".join(TOKENIZER.decode(TOKENIZER.convert_tokens_to_ids(expected)).lower().split())
        assert words == [text.lower() for text in expected]
    assert np.isfinite(found.surprise).all()


TEXTS = st.text(max_size=20)
LOSSES = st.floats(allow_nan=True, allow_infinity=False, width=32)
FINDINGS = st.builds(
    lambda suspicion, flag, texts, tokens, loss: (suspicion, flag, *texts, tuple(tokens), "", loss),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.tuples(TEXTS, TEXTS, TEXTS),
    st.lists(st.tuples(TEXTS, st.floats(-50, 50)), max_size=3),
    LOSSES,
)
WORDS = st.builds(WordFinding, TEXTS, st.integers(0, 99), st.floats(-9, 9), st.booleans(), TEXTS)


@FEW
@given(findings=st.lists(FINDINGS, max_size=6), words=st.lists(WORDS, max_size=3))
def test_an_audit_is_read_back_as_it_was_written(findings: list[Any], words: list[Any], tmp_path: Path) -> None:
    audit = Audit([RowFinding(row, *values) for row, values in enumerate(findings)], words, {"seed": 1})
    audit.to_parquet(tmp_path / "audit.parquet")
    assert Audit.from_parquet(tmp_path / "audit.parquet") == audit
    suspicions = [finding.suspicion for finding in audit.ranking]
    assert suspicions == sorted(suspicions, reverse=True)
