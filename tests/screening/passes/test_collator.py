# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Names of rows, strong views and left-out rows, in this process and in a worker that runs already."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cvreg_trainer.perturbations.strong import strong_view
from cvreg_trainer.screening.passes.collator import (
    DataCollatorForOthers,
    DataCollatorForScreening,
    DataCollatorWithFeatures,
    finds_images_in_rows,
    silence_rows,
)
from cvreg_trainer.screening.passes.row_features import picture_features, row_features


def rows(number: int = 6) -> list[dict[str, Any]]:
    pixels = [np.random.default_rng(row).integers(0, 256, (20, 30, 3), dtype=np.uint8) for row in range(number)]
    return [
        {"image": Image.fromarray(image), "caption": f"picture {row}", "label": row}
        for row, image in enumerate(pixels)
    ]


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "labels": torch.tensor([[row["label"], 7] for row in examples]),
        "pixel_values": torch.stack([torch.from_numpy(np.array(row["image"])) for row in examples]),
    }


def make(shows_views: bool = False, seed: int = 3) -> DataCollatorForScreening:
    return DataCollatorForScreening(collate, capacity=6, seed=seed, shows_views=shows_views)


def test_rows_reach_the_inner_collator_as_they_are_when_no_views_are_shown():
    seen: list[Any] = []

    def keep(examples: list[Any]) -> dict[str, torch.Tensor]:
        seen.extend(examples)
        return collate(examples)

    examples = rows()
    batch = DataCollatorForScreening(keep, 6, 0, shows_views=False)(examples)
    for ours, given in zip(seen, examples, strict=True):
        assert ours == given and ours is not given and ours["image"] is given["image"]
    assert torch.equal(batch["labels"], collate(examples)["labels"])
    assert set(batch) == {"labels", "pixel_values", "row_id", "is_early"} and not batch["is_early"].any()
    assert batch["row_id"].dtype == torch.int64 and batch["row_id"].shape == batch["is_early"].shape == (6,)


def test_a_collator_that_changes_its_rows_does_not_rename_them():
    def take(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"labels": torch.tensor([[row.pop("label"), len(row.pop("caption"))] for row in examples])}

    examples = rows()
    collator = DataCollatorForScreening(take, 6, 0, shows_views=False)
    first, second = collator(examples), collator(examples)
    assert torch.equal(first["row_id"], second["row_id"]) and torch.equal(first["labels"], second["labels"])


def test_names_depend_on_content_alone():
    examples = rows()
    names = make()(examples)["row_id"].tolist()
    assert len(set(names)) == 6
    assert make(shows_views=True, seed=9)(examples[::-1])["row_id"].tolist() == names[::-1]
    assert [make()([row])["row_id"].item() for row in rows()] == names
    turned = {name: examples[0][name] for name in reversed(examples[0])}
    other_text, other_pixel = (
        {**examples[0], "caption": "picture zero"},
        {**examples[0], "image": examples[1]["image"]},
    )
    result = make()([turned, other_text, other_pixel])["row_id"].tolist()
    assert result[0] == names[0] and names[0] not in result[1:]


def test_flagged_rows_are_left_out():
    examples, collator = rows(), make()
    names = collator(examples)["row_id"]
    collator.flag(names[[1, 4]].tolist())
    batch = collator(examples)
    assert batch["labels"][:, 0].tolist() == [0, 2, 3, 5] and torch.equal(batch["row_id"], names[[0, 2, 3, 5]])
    assert len(batch["pixel_values"]) == 4
    assert collator.is_flagged(names).tolist() == [False, True, False, False, True, False]
    assert collator.flagged.tolist() == sorted(names[[1, 4]].tolist())
    # The last word counts
    collator.flag([])
    assert len(collator(examples)["labels"]) == 6


def test_a_batch_of_flagged_rows_keeps_one_without_labels():
    examples, collator = rows(3), make()
    collator.flag(collator(examples)["row_id"].tolist())
    batch = collator(examples)
    assert batch["labels"].tolist() == [[-100, -100]] and len(batch["pixel_values"]) == 1


def test_silent_rows_have_neither_labels_nor_a_second_view():
    batch = {"labels": torch.tensor([[1, 2], [3, -100]]), "has_image": torch.tensor([True, True])}
    silence_rows(batch, torch.tensor([False, True]))
    assert batch["labels"].tolist() == [[1, 2], [-100, -100]] and batch["has_image"].tolist() == [True, False]


def test_views_are_a_function_of_seed_epoch_and_content():
    examples, collator = rows(), make(shows_views=True)
    before = [np.array(row["image"]) for row in examples]
    batch = collator(examples)
    views = batch["pixel_values"]
    assert batch["is_early"].all()
    assert torch.equal(views, collator(examples)["pixel_values"])
    assert torch.equal(views.flip(0), collator(examples[::-1])["pixel_values"])
    assert torch.equal(views[2], collator([examples[2]])["pixel_values"][0])
    assert all(np.array_equal(row["image"], image) for row, image in zip(examples, before, strict=True))
    assert not any(torch.equal(view, torch.from_numpy(image)) for view, image in zip(views, before, strict=True))
    assert not torch.equal(views[0], make(shows_views=True, seed=4)(examples)["pixel_values"][0])
    assert not torch.equal(views[0], collator([{**examples[0], "caption": "another"}])["pixel_values"][0])
    collator.set_epoch(1)
    assert not torch.equal(views[0], collator(examples)["pixel_values"][0])
    collator.shows_views = False
    assert torch.equal(collator(examples)["pixel_values"][0], torch.from_numpy(before[0]))


def test_a_view_is_a_strong_one():
    """No sharper claim: another generator draws other numbers, but a view is as far from the image as strong views."""
    examples, collator = rows(1), make(shows_views=True)
    image = np.array(examples[0]["image"]).astype(float)
    distances = [
        abs(strong_view(image.astype(np.uint8), np.random.default_rng(seed)) - image).mean() for seed in range(9)
    ]
    distance = abs(collator(examples)["pixel_values"][0].numpy() - image).mean()
    assert min(distances) / 2 < distance < 2 * max(distances)


def test_a_running_worker_sees_flags_epochs_and_the_end_of_the_views():
    examples, collator = rows(), make(shows_views=True)
    loader = DataLoader(examples, batch_size=3, collate_fn=collator, num_workers=1, persistent_workers=True)
    here = make(shows_views=True)

    def both() -> tuple[list[dict[str, torch.Tensor]], list[dict[str, torch.Tensor]]]:
        return list(loader), [here(examples[:3]), here(examples[3:])]

    def check() -> torch.Tensor:
        there, expected = both()
        for batch, ours in zip(there, expected, strict=True):
            assert batch.keys() == ours.keys() and all(torch.equal(batch[name], ours[name]) for name in ours)
        return torch.cat([batch["row_id"] for batch in there])

    names = check()
    for each in (collator, here):
        each.set_epoch(1)
    check()
    for each in (collator, here):
        each.flag(names[[0, 5]].tolist())
        each.shows_views = False
    assert torch.equal(check(), names[1:5])


@pytest.mark.parametrize("batch", [{"input_ids": torch.ones(2, 3)}, {"labels": torch.ones(1, 6, dtype=torch.int64)}])
def test_a_collator_without_a_row_of_labels_for_each_row_is_an_error(batch):
    collator = DataCollatorForScreening(lambda examples: batch, 6, 0, shows_views=False)
    with pytest.raises(ValueError, match=r"no `labels` with one row for each of its 2 rows.*screening='off'"):
        collator(rows(2))


def tensors(number: int = 4, dtype: torch.dtype = torch.float32, name: str = "x") -> list[dict[str, Any]]:
    """Rows of ready pixels, (C, H, W), under a name that says nothing."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(1, 256, (number, 3, 20, 30), generator=generator)
    pixels = pixels.to(dtype) if dtype == torch.uint8 else (pixels / 255 - 0.5).to(dtype)
    return [{name: pixels[row], "label": row} for row in range(number)]


def stack(examples: list[dict[str, Any]], name: str = "x", key: str = "pixel_values") -> dict[str, torch.Tensor]:
    labels = torch.tensor([[row["label"], 7] for row in examples])
    return {"labels": labels, key: torch.stack([row[name] for row in examples])}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("name", ["x", "image", "pixel_values"])
@pytest.mark.parametrize("key", ["pixel_values", "images", "anything"])
def test_views_of_ready_pixels(dtype: torch.dtype, name: str, key: str) -> None:
    examples = tensors(dtype=dtype, name=name)

    def inner(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return stack(rows, name, key)

    reads_rows = finds_images_in_rows(inner, examples)
    collator = DataCollatorForScreening(inner, 4, 3, True, reads_rows)
    plain, view = inner(examples)[key], collator(examples)[key]
    assert view.dtype == dtype and view.shape == plain.shape
    assert all(not torch.equal(*pair) for pair in zip(plain, view, strict=True))
    if dtype != torch.uint8:
        low, high = plain.float().amin((1, 2, 3)), plain.float().amax((1, 2, 3))
        assert ((view.float().amin((1, 2, 3)) >= low - 1e-2) & (view.float().amax((1, 2, 3)) <= high + 1e-2)).all()
    # A function of the row alone, whatever else is in the batch
    assert torch.equal(collator(examples[::-1])[key].flip(0), view)
    assert torch.equal(collator(examples[2:3])[key][0], view[2])
    collator.set_epoch(1)
    assert not torch.equal(collator(examples)[key], view)


def test_views_of_files_that_the_collator_opens(tmp_path: Any) -> None:
    paths = []
    for row in rows(3):
        paths.append({"file": str(tmp_path / f"{row['label']}.png"), "label": row["label"]})
        row["image"].save(paths[-1]["file"])

    def open_files(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = [torch.from_numpy(np.array(Image.open(row["file"]))).permute(2, 0, 1) for row in examples]
        return stack([{"x": image / 255, "label": row["label"]} for image, row in zip(pixels, examples, strict=True)])

    assert not finds_images_in_rows(open_files, paths)
    collator = DataCollatorForScreening(open_files, 3, 3, True, reads_rows=False)
    assert not torch.equal(collator(paths)["pixel_values"], open_files(paths)["pixel_values"])


def test_an_image_in_the_row_that_the_collator_does_not_read_does_not_count() -> None:
    """The thumbnail is in the row, and the pixels come from elsewhere."""
    examples = [{**row, "image": Image.new("RGB", (9, 9))} for row in tensors()]
    assert not finds_images_in_rows(stack, examples)
    collator = DataCollatorForScreening(stack, 4, 3, True, reads_rows=False)
    assert not torch.equal(collator(examples)["pixel_values"], stack(examples)["pixel_values"])


def test_rows_with_and_without_their_image_in_one_batch() -> None:
    """Rows that hold no image get their view in the batch; padding of zeros stays."""
    mixed = [*rows(2), *tensors(2, name="pixels"), {"pixels": torch.zeros(3, 20, 30), "label": 4}]

    def inner(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = [
            torch.from_numpy(np.array(row["image"])).permute(2, 0, 1) / 255 if "image" in row else row["pixels"]
            for row in examples
        ]
        return stack([{"x": image, "label": row["label"]} for image, row in zip(pixels, examples, strict=True)])

    plain = inner(mixed)["pixel_values"]
    view = DataCollatorForScreening(inner, 5, 3, True)(mixed)["pixel_values"]
    assert [torch.equal(*pair) for pair in zip(plain, view, strict=True)] == [False] * 4 + [True]
    alone = DataCollatorForScreening(collate, 5, 3, True)(rows(2))["pixel_values"].permute(0, 3, 1, 2) / 255
    assert torch.equal(view[:2], alone)


@pytest.mark.parametrize("key", ["pixel_values", "image_embeds", "patches"])
def test_pixels_without_a_view_are_refused_at_the_start(key: str) -> None:
    def flatten(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = stack(examples)
        patches = batch.pop("pixel_values").unfold(2, 5, 5).unfold(3, 5, 5).permute(0, 2, 3, 1, 4, 5).flatten(3)
        # As Qwen's processors, flattened over the batch; as a vision tower; as Pix2Struct's
        return {**batch, key: patches.flatten(0, 2) if key == "pixel_values" else patches.flatten(1, 2)}

    with pytest.raises(ValueError, match=f"`{key}` .*Keep PIL images in the rows"):
        finds_images_in_rows(flatten, tensors())


def test_text_has_no_views() -> None:
    texts = [{"label": row} for row in range(3)]

    def inner(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"labels": torch.tensor([[row["label"]] for row in examples]), "weights": torch.ones(len(examples))}

    assert finds_images_in_rows(inner, texts)
    assert set(DataCollatorForScreening(inner, 3, 3, True)(texts)) == {"labels", "weights", "row_id", "is_early"}


def test_features_are_added_beside_the_inner_batch():
    examples = rows(3)
    batch, inner = DataCollatorWithFeatures(make())(examples), make()(examples)
    expected = np.stack([row_features(row) for row in examples])
    assert batch["row_values"].dtype == torch.float16 and np.array_equal(batch["row_values"].numpy(), expected)
    assert torch.equal(batch["pixel_values"], inner["pixel_values"]) and torch.equal(batch["row_id"], inner["row_id"])


def test_others_pictures_come_with_a_rows_own_labels_and_name():
    examples = rows(3)
    without = {"caption": "no picture", "label": 9, "image": None}

    def labels_only(given: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        seen.extend(row["image"] for row in given)
        return {"labels": torch.tensor([[row["label"]] for row in given])}

    seen: list[Any] = []
    inner = DataCollatorForScreening(labels_only, capacity=1, seed=0, shows_views=False)
    batch = DataCollatorForOthers(inner)([(examples[0], examples[2]), (examples[1], examples[0]), (without, None)])
    assert batch["labels"].flatten().tolist() == [0, 1, 9] and batch["row_values"].flatten().tolist() == [1, 1, 0]
    assert [image and image.tobytes() for image in seen] == [
        examples[2]["image"].tobytes(),
        examples[0]["image"].tobytes(),
        None,
    ]
    names = inner([examples[0], examples[1], without])["row_id"]
    assert torch.equal(batch["row_id"], names)


def test_in_a_stream_the_other_row_is_the_next_with_as_many_pictures():
    examples = rows(3)
    examples.insert(1, {"caption": "two", "label": 5, "image": None})
    seen: list[Any] = []

    def collate_images(given: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        seen.extend(row["image"] for row in given)
        return {"labels": torch.tensor([[row["label"]] for row in given])}

    collator = DataCollatorForOthers(DataCollatorForScreening(collate_images, 1, 0, shows_views=False))
    batch = collator(examples)
    assert batch["row_values"].flatten().tolist() == [1, 0, 1, 1]
    expected = [examples[2], examples[1], examples[3], examples[0]]
    assert [image and image.tobytes() for image in seen] == [
        row["image"] and row["image"].tobytes() for row in expected
    ]
    assert DataCollatorForOthers(make())(examples[:1])["row_values"].tolist() == [[0]]


def test_pixels_from_elsewhere_have_features_and_are_passed_on():
    """A collator that opens files by itself: its rows hold no image."""
    pixels = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))

    def from_elsewhere(given: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        places = [row["label"] for row in given]
        return {"labels": torch.tensor(places).unsqueeze(1), "pixel_values": pixels[places]}

    inner = DataCollatorForScreening(from_elsewhere, 1, 0, shows_views=False, reads_rows=False)
    examples = [{"label": place} for place in range(3)]
    values = DataCollatorWithFeatures(inner)(examples)["row_values"]
    for place in range(3):
        expected = picture_features(pixels[place]).astype(np.float16)
        assert np.array_equal(values[place, : len(expected)].numpy(), expected)
    batch = DataCollatorForOthers(inner)([(row, None) for row in examples])
    assert torch.equal(batch["pixel_values"], pixels[[1, 2, 0]]) and batch["labels"].flatten().tolist() == [0, 1, 2]
    assert batch["row_values"].flatten().tolist() == [1, 1, 1]
