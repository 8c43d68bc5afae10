# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A row's view is the same for any number of workers, any batch and after a resume, and new in every epoch.

Apart from the other tests of the collator because a spawned worker imports this file, and TRL takes seconds.
"""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cvreg_trainer.collators.cross_view import DataCollatorForCrossView
from cvreg_trainer.perturbations import PatchPerturbation


pytestmark = pytest.mark.lowest


class Pictures(Dataset):
    """Twelve pictures with captions."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict:
        pixels = np.random.default_rng(index).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        return {"image": Image.fromarray(pixels), "caption": f"picture {index}", "index": index}


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """As scripts write them: pops from its rows, picks a prompt at random, draws from torch."""
    for row in rows:
        row["text"] = random.choice(["describe", "caption", "what is"]) + row.pop("caption")
    pixels = [torch.from_numpy(np.array(row.pop("image"))).permute(2, 0, 1).float() for row in rows]
    return {
        "input_ids": torch.tensor([[ord(letter) for letter in row["text"][:9]] for row in rows]),
        "labels": torch.randint(0, 9, (len(rows), 9)),
        "index": torch.tensor([row["index"] for row in rows]),
        "pixel_values": torch.stack(pixels),
    }


def make_collator() -> DataCollatorForCrossView:
    return DataCollatorForCrossView(collate, PatchPerturbation(), seed=7)


@pytest.fixture(scope="module")
def views() -> list[list[torch.Tensor]]:
    """Views of the twelve pictures in epochs 0 and 1, made one by one, without a data loader."""
    collator = make_collator()
    result = []
    for epoch in (0, 1):
        collator.set_epoch(epoch)
        result.append([collator([Pictures()[index]])["perturbed_pixel_values"][0] for index in range(12)])
    return result


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("workers", "persistent", "start", "batch_size"),
    [
        (0, False, None, 3),
        (0, False, None, 5),
        (1, False, None, 5),
        (1, True, None, 3),
        (4, False, None, 3),
        (4, True, None, 3),
        (4, True, None, 5),
        (1, True, "spawn", 4),
    ],
)
def test_view_does_not_depend_on_workers_batches_or_order(views, workers, persistent, start, batch_size):
    collator = make_collator()
    loader = DataLoader(
        Pictures(),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=start,
        collate_fn=collator,
    )
    for epoch in (0, 1):
        collator.set_epoch(epoch)
        seen = []
        for batch in loader:
            for index, view in zip(batch["index"].tolist(), batch["perturbed_pixel_values"], strict=True):
                assert torch.equal(view, views[epoch][index])
                seen.append(index)
        assert sorted(seen) == list(range(12))


def test_view_depends_on_seed_epoch_and_content(views):
    collator, row = make_collator(), Pictures()[0]

    def view(row):
        return collator([row])["perturbed_pixel_values"][0]

    assert torch.equal(view(row), views[0][0])
    assert not torch.equal(view({**row, "caption": "picture zero"}), views[0][0])
    assert not any(map(torch.equal, *views))
    collator.views.seed = 8
    assert not torch.equal(view(row), views[0][0])


def test_resumed_run_continues_with_the_same_views(views):
    collator = pickle.loads(pickle.dumps(make_collator()))
    collator.set_epoch(1)
    assert collator.epoch == 1
    assert torch.equal(collator([Pictures()[5]])["perturbed_pixel_values"][0], views[1][5])
