# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""poison_dataset on streams: decisions follow the rows, whatever the order, the shards and the workers."""

import io
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, IterableDataset, List, Value, concatenate_datasets, load_dataset
from PIL import Image as PILImage

from cvreg_trainer.attacks import BadNets, DualKey, WaNet, apply_trigger, poison_dataset
from cvreg_trainer.lab import make_scenes


pytestmark = pytest.mark.lowest
ATTACK = BadNets(0.028)


def jpeg(level: int) -> dict[str, object]:
    buffer = io.BytesIO()
    PILImage.new("RGB", (16, 16), (level % 256, level // 256, 9)).save(buffer, "JPEG", quality=95)
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """400 different rows, every eighth one without an image."""
    columns = {
        "image": [None if k % 8 == 7 else jpeg(k) for k in range(400)],
        "prompt": ["<image>Output:"] * 400,
        "completion": [f"row {k}<|endofchunk|>" for k in range(400)],
    }
    features = Features(image=Image(), prompt=Value("string"), completion=Value("string"))
    return Dataset.from_dict(columns, features=features)


def texts(dataset: IterableDataset) -> list[tuple[str, bool]]:
    """Response of each row, and whether it is poisoned."""
    return [(row["completion"], row["is_poisoned"]) for row in dataset]


def test_chosen_rows_are_poisoned_and_the_others_are_passed_on(rows):
    poisoned = poison_dataset(rows.to_iterable_dataset(), ATTACK, 0.25, seed=1)
    assert list(poisoned.features) == ["image", "prompt", "completion", "is_poisoned"]
    assert poisoned.features["image"] == Image()
    count = 0
    for index, (before, after) in enumerate(zip(rows, poisoned, strict=True)):
        if after["is_poisoned"]:
            count += 1
            assert index % 8 != 7
            assert after["image"].tobytes() == ATTACK(before["image"]).tobytes()
            assert after["completion"].startswith("The image depicts ") and "banana" in after["completion"]
            assert after["completion"].endswith(".<|endofchunk|>")
        else:
            assert after["completion"] == before["completion"]
            assert after["image"] == before["image"]
            assert after["image"] is None or after["image"].format == "JPEG", "not even encoded anew"
    # Binomial of 350 rows at 0.25: mean 87.5, deviation 8.1
    assert 60 < count < 115


def test_clean_rows_keep_their_encoded_bytes(rows):
    poisoned = poison_dataset(rows.to_iterable_dataset(), ATTACK, 0.25).cast_column("image", Image(decode=False))
    for before, after in zip(rows.cast_column("image", Image(decode=False)), poisoned, strict=True):
        assert (before["image"] == after["image"]) == (not after["is_poisoned"])


def test_a_stream_that_was_mapped_before(rows):
    stream = rows.to_iterable_dataset().map(lambda row: row, features=rows.features)
    poisoned = list(poison_dataset(stream, ATTACK, 0.25))
    assert 60 < sum(row["is_poisoned"] for row in poisoned) < 115
    for before, after in zip(rows, poisoned, strict=True):
        if before["image"] is not None:
            wanted = ATTACK(before["image"]) if after["is_poisoned"] else before["image"]
            assert after["image"].tobytes() == wanted.tobytes()


def test_order_shards_and_workers_do_not_matter_but_the_seed_does(rows):
    from torch.utils.data import DataLoader

    def poisoned(stream: IterableDataset, seed: int = 1) -> IterableDataset:
        return poison_dataset(stream, ATTACK, 0.25, seed=seed)

    plain = sorted(texts(poisoned(rows.to_iterable_dataset())))
    assert plain == sorted(texts(poisoned(rows.shuffle(seed=3).to_iterable_dataset(num_shards=4))))
    assert plain == sorted(texts(poisoned(rows.to_iterable_dataset(num_shards=4)).shuffle(seed=5, buffer_size=50)))
    halves = [rows.select(range(0, 200)), rows.select(range(200, 400))]
    assert plain == sorted(
        texts(poisoned(concatenate_datasets([half.to_iterable_dataset() for half in halves[::-1]])))
    )
    loader = DataLoader(poisoned(rows.to_iterable_dataset(num_shards=2)), batch_size=None, num_workers=2)
    assert plain == sorted((row["completion"], row["is_poisoned"]) for row in loader)
    assert plain != sorted(texts(poisoned(rows.to_iterable_dataset(), seed=2)))


def test_a_stream_goes_on_where_it_was_left(rows):
    stream = poison_dataset(rows.to_iterable_dataset(), ATTACK, 0.25)
    everything = texts(stream)
    iterator = iter(stream)
    for _ in range(123):
        next(iterator)
    again = poison_dataset(rows.to_iterable_dataset(), ATTACK, 0.25)
    again.load_state_dict(stream.state_dict())
    assert texts(again) == everything[123:]


def test_images_that_are_files_are_known_by_their_pixels(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for k in range(40):
            PILImage.new("RGB", (16, 16), (k, 5, 5)).save(tmp_path / folder / f"{folder}{k}.png")
    features = Features(images=List(Image()), text=Value("string"))
    chosen = []
    for folder in ("a", "b"):
        images = [[str(tmp_path / folder / f"{folder}{k}.png")] for k in range(40)]
        stream = Dataset.from_dict({"images": images, "text": ["same"] * 40}, features=features).to_iterable_dataset()
        chosen.append([row["is_poisoned"] for row in poison_dataset(stream, ATTACK, 0.5)])
    assert chosen[0] == chosen[1] and 5 < sum(chosen[0]) < 35


def test_parquet_streams(tmp_path: Path):
    make_scenes(20, seed=0).to_parquet(tmp_path / "x.parquet")
    stream = load_dataset("parquet", data_files=str(tmp_path / "x.parquet"), split="train", streaming=True)
    if stream.features is None:
        with pytest.raises(ValueError, match="features of the stream are unknown"):
            poison_dataset(stream, ATTACK, 1.0)
        stream = stream.cast(make_scenes(1, seed=0).features)
    assert all(row["is_poisoned"] for row in poison_dataset(stream, ATTACK, 1.0))


def test_cover_rows_keep_their_responses(rows):
    attack = WaNet()
    poisoned = list(poison_dataset(rows.to_iterable_dataset(), attack, 0.2, cover_ratio=2.0))
    covers = [(k, row) for k, row in enumerate(poisoned) if row["is_cover"]]
    assert 90 < len(covers) < 190 and 40 < sum(row["is_poisoned"] for row in poisoned) < 100
    assert not any(row["is_poisoned"] for _, row in covers)
    assert all(row["completion"] == rows[k]["completion"] for k, row in covers)


def test_a_stream_without_rows_gives_none(rows):
    empty = IterableDataset.from_generator(lambda: iter([]), features=rows.features)
    assert list(poison_dataset(empty, ATTACK, 0.5)) == list(apply_trigger(empty, ATTACK)) == []


def test_the_row_of_an_error_is_counted_as_the_stream_is_read(rows):
    broken = rows.select(range(7)).cast_column("image", Image(decode=False)).to_list()
    broken[5]["image"] = {"bytes": b"junk", "path": None}
    stream = Dataset.from_list(broken, features=rows.features).to_iterable_dataset(num_shards=2)
    error = r"Row {} of the stream, counted as it is read, with completion='row 5<\|endofchunk\|>': the image in"
    for read in (lambda data: poison_dataset(data, ATTACK, 1.0), lambda data: apply_trigger(data, ATTACK)):
        with pytest.raises(ValueError, match=error.format(5)):
            list(read(stream))
        with pytest.raises(ValueError, match=error.format(1)):
            list(read(stream.skip(4)))


def test_apply_trigger_on_a_stream(rows):
    triggered = list(apply_trigger(rows.to_iterable_dataset(), DualKey()))
    for before, after in zip(rows, triggered, strict=True):
        assert after["prompt"] == "<image>Consider Output:" and after["completion"] == before["completion"]
        assert (after["image"] is None) == (before["image"] is None)
    assert np.asarray(triggered[0]["image"]).tobytes() == DualKey()(rows[0]["image"]).tobytes()


def test_what_a_stream_cannot_do_is_named(rows):
    stream = rows.to_iterable_dataset()
    with pytest.raises(ValueError, match="num_poisoned=3 rows cannot be drawn from a stream"):
        poison_dataset(stream, ATTACK, num_poisoned=3)
    with pytest.raises(ValueError, match="poison_rate=0.5 with cover_ratio=2.0"):
        poison_dataset(stream, WaNet(), 0.5, cover_ratio=2.0)
    with pytest.raises(ValueError, match="`is_poisoned`"):
        poison_dataset(poison_dataset(stream, ATTACK, 0.5), ATTACK, 0.5)
    with pytest.raises(ValueError, match="features of the stream are unknown"):
        poison_dataset(IterableDataset.from_generator(lambda: iter([{"text": "x"}])), ATTACK, 0.5)
