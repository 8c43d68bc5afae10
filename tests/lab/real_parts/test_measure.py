# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The measures against hand-written ones."""

import io

import pytest
import torch
from PIL import Image
from tiny_parts import tiny_joined

from cvreg_trainer.data.pictures import DESCRIBE, Picture
from cvreg_trainer.lab.real_parts.measure import choose_pictures, measure_captioner, summarise


def pictures(count: int) -> list[Picture]:
    made = []
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (30, 30), (number * 9, 255 - number * 9, 40)).save(file, "PNG")
        source = "food" if number % 2 else "tux_paint"
        made.append(Picture(source, str(number), file.getvalue(), "thing " + "ab"[number % 2] * (number + 1)))
    return made


def test_summary_of_losses_by_hand() -> None:
    losses = torch.tensor([[2.0, 6.0, 9.0], [4.0, 4.0, 9.0], [5.0, 8.0, 9.0]])
    found = summarise([(losses, torch.tensor([2, 2, 4]))])
    assert found["right"] == pytest.approx(15 / 8)
    assert found["swapped"] == pytest.approx((4.5 + 7.0 + 9.0) / 8, abs=1e-4)
    assert found["gap"] == pytest.approx((2.5 + 3.0 + 0.0) / 8, abs=1e-4)
    # A token, by pictures: 1.0 3.0 2.25, 2.0 2.0 2.25, 2.5 4.0 2.25. The first and the third picture's own captions
    # come first, and the second's ties with one before it
    assert found["first_of_10"] == pytest.approx(66.7, abs=0.1)
    # Relative to the other pictures: -1.25 0 0; 0.25 -1.5 0; 0.75 1.5 0
    assert found["first_of_10_relative"] == pytest.approx(100.0)


def test_the_gap_has_the_standard_error_of_a_ratio() -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = [(torch.rand(10, 10, generator=generator), torch.full((10,), 5)) for _ in range(30)]
    found = summarise(blocks)
    each = torch.cat([((b.sum(0) - b.diagonal()) / 9 - b.diagonal()) / 5 for b, _ in blocks])
    assert found["gap_standard_error"] == pytest.approx((each.std() / 300**0.5).item(), abs=1e-4)


def test_chance_is_one_in_ten() -> None:
    generator = torch.Generator().manual_seed(1)
    found = summarise([(torch.rand(10, 10, generator=generator), torch.full((10,), 5)) for _ in range(300)])
    assert found["first_of_10"] == pytest.approx(10, abs=2)
    assert found["first_of_10_relative"] == pytest.approx(10, abs=2)


def test_equal_and_cryptic_captions_are_left_out() -> None:
    made = [Picture("food", str(number), b"", text) for number, text in enumerate(["A dog", "dog", "cat"])]
    made.append(Picture("food", "4", b"", "x", cryptic=True))
    for seed in range(5):
        chosen = choose_pictures(made, 10, seed)
        assert sorted(picture.caption.split()[-1] for picture in chosen) == ["cat", "dog"]
    assert len(choose_pictures(made, 1)) == 1


def test_losses_are_those_of_the_models_own_forward() -> None:
    model, processor = tiny_joined()
    made = pictures(20)
    found = measure_captioner(model, processor, made, limit=20)
    assert found["pictures"] == 20 and found["sources"] == {"tux_paint": 10, "food": 10}
    assert found["one_source"]["pictures"] == 20
    total = tokens = 0.0
    model = model.float()
    for picture in made:
        text = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DESCRIBE}]}],
            add_generation_prompt=True,
        )
        start = processor(images=picture.open(), text=text, return_tensors="pt")
        whole = processor(images=picture.open(), text=text + picture.caption + "<|im_end|>", return_tensors="pt")
        labels = whole["input_ids"].clone()
        labels[:, : start["input_ids"].shape[1]] = -100
        count = (labels != -100).sum().item()
        with torch.no_grad():
            total += model(**whole, labels=labels).loss.item() * count
        tokens += count
    assert found["all_sources"]["right"] == pytest.approx(total / tokens, rel=0.02)
    assert found["bleu4"] >= 0 and len(found["samples"]) == 20


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="At least 10 .* not 3"):
        measure_captioner(*tiny_joined(), pictures(3))
