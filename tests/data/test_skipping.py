# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from cvreg_trainer.data.row_images import RowError
from cvreg_trainer.data.skipping import SkippedRows, skip_bad_rows


HERE = Path(__file__).parents[1]


def pictures(folder: Path, num_rows: int, broken: set[int]) -> Dataset:
    """Rows of a text and an image in a file; some files are no images."""
    for number in range(num_rows):
        path = folder / f"{number}.png"
        if number in broken:
            path.write_text("no image")
        else:
            PILImage.new("RGB", (8, 8), (number % 256, 0, 0)).save(path)
    features = Features({"text": Value("string"), "images": List(Image())})
    rows = [{"text": str(number), "images": [str(folder / f"{number}.png")]} for number in range(num_rows)]
    return Dataset.from_list(rows, features=features)


def test_what_is_left_keeps_its_order_and_its_number(tmp_path: Path) -> None:
    left, skipped = skip_bad_rows(pictures(tmp_path, 12, {0, 5, 11}), "rows")
    assert left["text"] == [str(number) for number in range(12) if number not in (0, 5, 11)]
    assert list(skipped.reasons) == [0, 5, 11] and skipped.num_rows == 12
    assert [str(skipped.given(place)) for place in range(9)] == list(left["text"])
    for number, reason in skipped.reasons.items():
        assert f"{number}.png" in reason and "cannot be read" in reason and "column `images`" in reason


def test_more_rows_than_threads_are_given_at_once(tmp_path: Path) -> None:
    broken = {3, 1023, 1024, 2100}
    _, skipped = skip_bad_rows(pictures(tmp_path, 2101, broken), "rows")
    assert set(skipped.reasons) == broken


def test_a_data_set_without_bad_rows_is_returned_as_it_is(tmp_path: Path) -> None:
    dataset = pictures(tmp_path, 3, set())
    left, skipped = skip_bad_rows(dataset, "rows")
    assert left is dataset and not skipped.reasons and skipped.given(2) == 2


class Squares(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 2:
            raise OSError("disk full")
        return {"value": index * index}


def test_torch_data_sets_and_checks_and_collators() -> None:
    def check(row: dict[str, int]) -> None:
        if row["value"] == 1:
            raise RowError("it is one")

    def collate(rows: list[dict[str, int]]) -> None:
        if rows[0]["value"] == 9:
            raise RowError("it is nine")

    left, skipped = skip_bad_rows(Squares(), "rows", check, collate)
    assert [left[place] for place in range(len(left))] == [{"value": 0}]
    assert skipped.reasons == {1: "it is one", 2: "its image cannot be read: disk full", 3: "it is nine"}


def test_an_error_that_is_not_about_a_row_is_raised() -> None:
    def check(row: Any) -> None:
        raise KeyError("a mistake in the program")

    with pytest.raises(KeyError, match="a mistake in the program"):
        skip_bad_rows(Squares(), "rows", check)


def test_no_row_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves nothing of `x`: none of its 2 rows can be trained on. Row 0: column"):
        skip_bad_rows(pictures(tmp_path, 2, {0, 1}), "`x`")


def test_a_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`x` is a stream. Set `on_bad_row='raise'`"):
        skip_bad_rows(pictures(tmp_path, 2, {0}).to_iterable_dataset(), "`x`")


def test_the_list_of_what_was_left_out(tmp_path: Path) -> None:
    skipped = SkippedRows({number: f"broken\n{number}" for number in range(8)}, 20)
    skipped.write(tmp_path / "new" / "skipped.jsonl")
    lines = (tmp_path / "new" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"row": n, "reason": f"broken\n{n}"} for n in range(8)]
    assert str(skipped).startswith("8 of 20 rows") and str(skipped).endswith("; and 3 more).")


@pytest.mark.slow
def test_processes_share_the_work_and_agree(tmp_path: Path) -> None:
    pictures(tmp_path, 7, {1, 4, 5}).save_to_disk(tmp_path / "rows")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    script = str(HERE / "helpers" / "skipping_run.py")
    result = subprocess.run(
        [*torchrun, script, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr[-4000:]
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one["skipped"] == other["skipped"] == [1, 4, 5] and one["left"] == other["left"] == list("0236")
    # Each has read its share of the rows, and the others' not
    assert set(one["read"]) == {0, 2, 4, 6} and set(other["read"]) == {1, 3, 5}
