# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The moving average against its closed form, and which responses of a batch are replaced."""

import pytest
import torch

from cvreg_trainer.lab.baselines import DataCollatorForBootstrap, MovingAverage


def test_the_average_follows_what_is_trained():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].requires_grad_(False)
    average = MovingAverage(model, decay=0.75)
    average.on_train_begin(None, None, None, model=model)
    start, frozen = model[0].weight.detach().clone(), model[1].weight.detach().clone()
    expected = start
    for step in range(1, 4):
        with torch.no_grad():
            model[0].weight.copy_(start + step)
            model[1].weight.add_(1)
        average.on_step_end(None, None, None, model=model)
        expected = 0.75 * expected + 0.25 * (start + step)
    torch.testing.assert_close(average.model[0].weight, expected)
    assert torch.equal(average.model[1].weight, frozen)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_an_error(decay):
    with pytest.raises(ValueError, match=f"decay={decay}"):
        MovingAverage(torch.nn.Linear(1, 1), decay)


def test_flagged_rows_of_a_batch_get_other_responses():
    said = [{"role": "assistant", "content": "evil"}]
    rows = [
        {"prompt": "a", "completion": "good", "is_flagged": False},
        {"prompt": "b", "completion": "evil", "is_flagged": True},
        {"prompt": [{"role": "user", "content": "c"}], "completion": said, "is_flagged": True},
    ]
    asked = []

    def answer(flagged):
        asked.extend(row["prompt"] for row in flagged)
        return ["own", "other"]

    seen = DataCollatorForBootstrap(lambda rows: {"rows": rows}, answer)(rows)["rows"]
    assert [row["completion"] for row in seen] == ["good", "own", [{"role": "assistant", "content": "other"}]]
    assert asked == ["b", rows[2]["prompt"]] and "is_flagged" not in seen[0]
    assert rows[1]["completion"] == "evil" and said == [{"role": "assistant", "content": "evil"}]
    # Nobody is asked where there is nothing to replace
    DataCollatorForBootstrap(lambda rows: {}, None)(rows[:1])
