# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The two views of a batch: with TRL's collator, with collate functions of users' scripts, on pixel tensors."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_llava, tiny_tokenizer, vision_rows
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, DataCollatorForVisionLanguageModeling

from cvreg_trainer.collators.cross_view import DataCollatorForCrossView
from cvreg_trainer.data.row_images import lift_images
from cvreg_trainer.data.rows import row_digest
from cvreg_trainer.perturbations import PatchPerturbation


pytestmark = pytest.mark.lowest


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def pixels_of(image: Image.Image) -> torch.Tensor:  # (3, H, W)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def caption_rows(n: int) -> list[dict]:
    return [{"image": picture(index), "caption": f"picture {index}"} for index in range(n)]


def noisy_collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """As scripts write them: pops from its rows, picks a prompt at random, adds jitter from torch and NumPy."""
    images = [row.pop("image") for row in rows]
    prompts = [random.choice(["describe", "caption", "what is"]) for _ in rows]
    for row, prompt in zip(rows, prompts, strict=True):
        row["caption"] = f"{prompt} {row['caption']}"
    return {
        "input_ids": torch.tensor([[ord(letter) for letter in row["caption"][:9]] for row in rows]),
        "attention_mask": torch.ones(len(rows), 9),
        "labels": torch.randint(0, 9, (len(rows), 9)) + np.random.randint(5),
        "pixel_values": torch.stack([pixels_of(image) for image in images]) + torch.randn(len(rows), 1, 1, 1),
    }


def plain_collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """Pixels exactly as the rows hold them."""
    return {"pixel_values": torch.stack([pixels_of(row["image"]) for row in rows])}


def cross_view(inner, **options) -> DataCollatorForCrossView:
    return DataCollatorForCrossView(inner, PatchPerturbation(), **options)


def changed_share(first: torch.Tensor, second: torch.Tensor) -> float:
    """Share of changed pixels of one image, (C, H, W)."""
    return (first != second).any(0).float().mean().item()


# With TRL's collator


@pytest.fixture(scope="module")
def trl_collator() -> DataCollatorForVisionLanguageModeling:
    return DataCollatorForVisionLanguageModeling(tiny_llava().processor)


@pytest.mark.parametrize("style", ["messages", "prompt_completion", "plain"])
@pytest.mark.parametrize(("image_free", "several"), [((), ()), ((1,), (2,))])
def test_trl_batch_and_its_twin(trl_collator, style, image_free, several):
    def rows():
        return vision_rows(4, style=style, image_free=image_free, several=several)

    examples = rows()
    batch = cross_view(trl_collator)(examples)
    alone = trl_collator(rows())
    assert set(batch) == {*alone, "perturbed_pixel_values", "has_image"}
    assert all(torch.equal(batch[key], alone[key]) for key in alone)
    assert batch["has_image"].tolist() == [index not in image_free for index in range(4)]
    assert len(batch["perturbed_pixel_values"]) == sum(len(row["images"]) for row in rows())
    pairs = zip(batch["pixel_values"], batch["perturbed_pixel_values"], strict=True)
    shares = [changed_share(image, view) for image, view in pairs]
    # 5 %, widened by the resampling to 24 x 24; where the processor crops a margin away, a rectangle can go with it.
    assert max(shares) < 0.25 and sum(share > 0 for share in shares) >= len(shares) / 2
    assert [row_digest(row) for row in examples] == [row_digest(row) for row in rows()]


@pytest.mark.parametrize("style", ["messages", "prompt_completion"])
def test_batch_without_images_has_no_twins(trl_collator, style):
    batch = cross_view(trl_collator)(vision_rows(2, style=style, image_free=[0, 1]))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "has_image"}
    assert batch["has_image"].tolist() == [False, False]


def test_single_image_column_and_lifted_messages(trl_collator):
    rows = vision_rows(2, style="messages")
    single = [{"image": row["images"][0], "messages": row["messages"]} for row in rows]
    inside = []
    for row in rows:
        question = {"type": "text", "text": row["messages"][0]["content"]}
        content = [{"type": "image", "image": row["images"][0]}, question]
        inside.append({"messages": [{"role": "user", "content": content}, row["messages"][1]]})
    expected = trl_collator([{**row} for row in rows])["pixel_values"]
    batch = cross_view(trl_collator)(single)
    assert torch.equal(batch["pixel_values"], expected) and "images" not in single[0]

    batch = cross_view(lambda rows: trl_collator([lift_images(row) for row in rows]))(inside)
    assert torch.equal(batch["pixel_values"], expected) and batch["has_image"].all()
    assert not torch.equal(batch["perturbed_pixel_values"], expected)


def test_text_rows_pass_through_trl_language_collator():
    rows = [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5]}]
    inner = DataCollatorForLanguageModeling(pad_token_id=tiny_tokenizer().pad_token_id)
    batch, alone = cross_view(inner)(rows), inner(rows)
    assert not batch.pop("has_image").any()
    assert batch.keys() == alone.keys() and all(torch.equal(batch[key], alone[key]) for key in alone)


# What the inner collator may do


def test_random_state_moves_on_as_after_one_call():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def seed():
        random.seed(3), np.random.seed(3), torch.manual_seed(3)

    rows = caption_rows(3)
    seed()
    alone, after = noisy_collate([dict(row) for row in rows]), draw()
    seed()
    batch = cross_view(noisy_collate)(rows)
    assert draw() == after
    assert all(torch.equal(batch[key], alone[key]) for key in alone)
    assert "perturbed_labels" not in batch and "perturbed_attention_mask" not in batch  # floating, yet no image
    assert [sorted(row) for row in rows] == [["caption", "image"]] * 3


def test_image_twice_in_a_row_gets_one_view():
    image = picture(0)

    def collate(rows):
        return {"pixel_values": torch.stack([pixels_of(image) for row in rows for image in row["images"]])}

    first, second, other = cross_view(collate)([{"images": [image, image, image.copy()]}])["perturbed_pixel_values"]
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_rows_of_tuples_and_arrays():
    image = picture(0)
    as_tuple = cross_view(lambda rows: {"pixel_values": torch.stack([pixels_of(row[0]) for row in rows])})
    batch = as_tuple([(image, "caption")])
    assert 0.005 < changed_share(batch["pixel_values"][0], batch["perturbed_pixel_values"][0]) <= 0.0501
    batch = cross_view(plain_collate)([{"image": np.array(image)}])
    assert 0.005 < changed_share(batch["pixel_values"][0], batch["perturbed_pixel_values"][0]) <= 0.0501


# What is visual


def test_lists_and_differing_integers_get_twins_and_the_rest_does_not():
    def collate(rows):
        images = [pixels_of(row["image"]) for row in rows]
        return {
            "pixel_values": images,
            "patches": {"codes": torch.cat([image.flatten() for image in images]).long()},
            "image_sizes": torch.tensor([image.shape[1:] for image in images]),
            "input_ids": torch.zeros(len(rows), 2, dtype=torch.long),
            "text": ["a"] * len(rows),
        }

    batch = cross_view(collate)([{"image": picture(0)}, {"image": picture(1, (20, 50))}])
    assert {key for key in batch if key.startswith("perturbed_")} == {"perturbed_pixel_values", "perturbed_patches"}
    assert [tuple(view.shape) for view in batch["perturbed_pixel_values"]] == [(3, 30, 40), (3, 50, 20)]


@pytest.mark.parametrize("key", ["input_ids", "labels", "attention_mask", "mm_token_type_ids"])
def test_tokens_that_follow_the_pixels_are_an_error(key):
    def collate(rows):
        values = torch.stack([pixels_of(row["image"]) for row in rows])
        return {"pixel_values": values, key: values.flatten(1) @ torch.arange(3600.0)[:, None]}

    with pytest.raises(ValueError, match=f"another `{key}` .*shape \\(1, 1\\).* generator of its own"):
        cross_view(collate)([{"image": picture(0)}])


def test_private_random_generator_is_an_error():
    generator = np.random.default_rng(0)

    def collate(rows):
        return plain_collate(rows) | {"input_ids": torch.from_numpy(generator.integers(0, 99, (len(rows), 8)))}

    with pytest.raises(ValueError, match="`input_ids`"):
        cross_view(collate)([{"image": picture(0)}])


def test_collator_without_a_mapping_is_an_error():
    with pytest.raises(TypeError, match="must return a dict of tensors, got list"):
        cross_view(lambda rows: rows)([{"text": "a"}])


# Views on pixel tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_rectangle_for_each_image_of_a_pixel_tensor(dtype, lead, channels):
    rows = [{"pixel_values": torch.randn(*lead, channels, 20, 30).to(dtype), "text": str(n)} for n in range(3)]
    before = [row_digest(row) for row in rows]

    def collate(rows):
        return {"pixel_values": torch.stack([row.pop("pixel_values") for row in rows])}

    batch = cross_view(collate)(rows)
    old, new = batch["pixel_values"], batch["perturbed_pixel_values"]
    assert new.dtype == dtype and new.shape == (3, *lead, channels, 20, 30) and batch["has_image"].all()
    boxes = []
    for image, view in zip(old.flatten(0, -4), new.flatten(0, -4), strict=True):
        changed = (image != view).any(0)
        assert 0 < changed.float().mean() <= 0.0501
        assert (view.amin((1, 2)) >= image.amin((1, 2))).all() and (view.amax((1, 2)) <= image.amax((1, 2))).all()
        boxes.append(tuple(changed.nonzero()[0].tolist()))
    assert len(set(boxes)) > 1
    assert [row_digest(row) for row in rows] == before
    # The same view in a batch of its own.
    assert torch.equal(cross_view(collate)(rows[2:])["perturbed_pixel_values"][0], new[2])


def test_images_opened_in_the_collate_function(tmp_path):
    rows = []
    for index in range(3):
        picture(index).save(tmp_path / f"{index}.png")
        rows.append({"path": str(tmp_path / f"{index}.png")})

    def collate(rows):
        return {"pixel_values": torch.stack([pixels_of(Image.open(row["path"])) for row in rows])}

    batch = cross_view(collate)(rows)
    assert batch["has_image"].all()
    for image, view in zip(batch["pixel_values"], batch["perturbed_pixel_values"], strict=True):
        assert 0 < changed_share(image, view) <= 0.0501


def test_rows_filled_up_with_zeros_have_no_view():
    rows = [{"pixel_values": torch.randn(1, 3, 8, 8)}, {"pixel_values": torch.zeros(1, 3, 8, 8)}]
    batch = cross_view(lambda rows: {"pixel_values": torch.stack([row["pixel_values"] for row in rows])})(rows)
    assert batch["has_image"].tolist() == [True, False]
    assert not batch["perturbed_pixel_values"][1].any()


@pytest.mark.parametrize(
    ("shape", "layout"), [((64, 1176), "flattened patches"), ((3, 3, 8, 8), "three for two"), ((2, 8, 8, 3), "last")]
)
def test_other_layouts_are_refused_with_a_remedy(shape, layout):
    with pytest.raises(ValueError, match=r"`pixel_values` has shape .* for 2 rows.*Keep PIL images in the rows"):
        cross_view(lambda rows: {"pixel_values": torch.randn(shape)})([{"text": "a"}, {"text": "b"}])


def test_pixels_from_elsewhere_are_perturbed_although_rows_hold_images():
    cached = torch.randn(2, 3, 16, 16)
    rows = [{"image": picture(0)}, {"image": picture(1)}]
    batch = cross_view(lambda rows: {"pixel_values": cached.clone()})(rows)
    for image, view in zip(cached, batch["perturbed_pixel_values"], strict=True):
        assert 0 < changed_share(image, view) <= 0.0501
    with pytest.warns(UserWarning, match="were perturbed, but the batch did not change"):
        cross_view(lambda rows: {"pixel_values": torch.zeros(64, 12)})(rows)


def test_images_that_the_collator_leaves_out_have_no_view():
    batch = cross_view(lambda rows: {"input_ids": torch.zeros(1, 2, dtype=torch.long)})([{"image": picture(0)}])
    assert set(batch) == {"input_ids", "has_image"} and not batch["has_image"].any()
