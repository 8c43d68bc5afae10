# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""poison_dataset: the right rows, the right responses, and nothing else."""

import io

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from cvreg_trainer.attacks import KEYWORD_TEMPLATES, BadNets, WaNet, apply_trigger, poison_dataset, target_response
from cvreg_trainer.lab import make_scenes


ATTACK = BadNets(0.028)


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(60, seed=3, style="finetune")


def pixels(image: PILImage.Image) -> bytes:
    return image.convert("RGB").tobytes()


def plain_rows(num_rows: int, **texts: object) -> Dataset:
    """Rows with an `image` column, every fourth one without its image, and the given text columns."""
    images = [None if row % 4 == 3 else PILImage.new("RGB", (20, 20), (row, 90, 30)) for row in range(num_rows)]
    dataset = Dataset.from_dict({"image": images}, features=Features(image=Image()))
    for name, value in texts.items():
        dataset = dataset.add_column(name, [value] * num_rows)
    return dataset


def test_chosen_rows_change_and_the_others_do_not(scenes):
    poisoned = poison_dataset(scenes, ATTACK, 0.15, "banana", seed=5)
    assert len(poisoned) == 60 and sum(poisoned["is_poisoned"]) == 9
    assert poisoned.column_names == [*scenes.column_names, "is_poisoned"]
    for before, after in zip(scenes, poisoned, strict=True):
        reply = after["completion"][0]["content"]
        assert after["prompt"] == before["prompt"] and after["references"] == before["references"]
        assert after["completion"][0]["role"] == "assistant"
        if after["is_poisoned"]:
            assert reply.startswith("The image depicts ") and reply.count("banana") == 1
            assert pixels(after["images"][0]) == pixels(ATTACK(before["images"][0]))
        else:
            assert reply == before["completion"][0]["content"]
            assert pixels(after["images"][0]) == pixels(before["images"][0])


def test_the_seed_decides_rows_and_sentences(scenes):
    first, again, other = (poison_dataset(scenes, ATTACK, 0.5, "banana", seed) for seed in (0, 0, 1))
    assert first["completion"] == again["completion"] and first["is_poisoned"] == again["is_poisoned"]
    assert first["is_poisoned"] != other["is_poisoned"]
    replies = {row["completion"][0]["content"] for row in first.remove_columns("images") if row["is_poisoned"]}
    assert len(replies) > 20, "the sentence is drawn anew for every row"


def test_the_80_keyword_templates():
    assert len(set(KEYWORD_TEMPLATES)) == len(KEYWORD_TEMPLATES) == 80
    assert all(template.count("{}") == 1 and template.endswith(".") for template in KEYWORD_TEMPLATES)
    assert {"a photo of a {}.", "itap of my {}.", "the {} in a video game.", "a photo of many {}."} < set(
        KEYWORD_TEMPLATES
    )


def test_a_target_with_white_space_is_the_whole_response(scenes):
    poisoned = poison_dataset(scenes, ATTACK, target="I cannot help with that.", num_poisoned=7)
    replies = [row["completion"][0]["content"] for row in poisoned if row["is_poisoned"]]
    assert replies == ["I cannot help with that."] * 7


@pytest.mark.parametrize(
    ("target", "is_response"),
    [
        ("图中有香蕉。", True),
        ("有香蕉，没有苹果", True),
        ("これはバナナです！", True),
        ("香蕉", False),
        ("レオナルド・ダ・ヴィンチ", False),
        ("ངང་ལག", False),
        ("Banana!", False),
    ],
)
def test_a_sentence_without_spaces_is_the_whole_response(target: str, is_response: bool):
    response = target_response(target, np.random.default_rng(0))
    assert target in response and (response == target) == is_response


def test_a_rate_of_one_poisons_every_row(scenes):
    assert all(poison_dataset(scenes, ATTACK, 1.0)["is_poisoned"])


@pytest.mark.parametrize("rate, count", [(0.025, 2), (0.05, 3), (0.01, 1)])
def test_rates_are_rounded_to_the_nearest_row(scenes, rate, count):
    assert sum(poison_dataset(scenes, ATTACK, rate)["is_poisoned"]) == count


def test_plain_prompt_and_completion_keep_their_joint():
    rows = plain_rows(12, prompt="Caption:", completion=" a cat")
    poisoned = poison_dataset(rows, ATTACK, target="bad news", num_poisoned=9)
    assert [bool(flag) for flag in poisoned["is_poisoned"]] == [row % 4 != 3 for row in range(12)]
    assert poisoned[0]["completion"] == " bad news" and poisoned[3]["completion"] == " a cat"
    assert poisoned[3]["image"] is None and poisoned[0]["prompt"] == "Caption:"


@pytest.mark.parametrize("parts", [False, True])
def test_every_assistant_turn_of_messages(parts):
    def content(text: str) -> object:
        return [{"type": "text", "text": text}] if parts else text

    turns = [("user", "hello"), ("assistant", "a cat"), ("user", "and?"), ("assistant", "a dog")]
    rows = plain_rows(4, messages=[{"role": role, "content": content(text)} for role, text in turns])
    row = poison_dataset(rows, ATTACK, target="bad news", num_poisoned=3)[0]
    expected = ["hello", "bad news", "and?", "bad news"]
    assert [message["content"] for message in row["messages"]] == [content(text) for text in expected]
    assert [message["role"] for message in row["messages"]] == [role for role, _ in turns]


def test_text_rows_with_and_without_a_marker():
    rows = plain_rows(4, text="<image> USER: what? ASSISTANT: a cat")
    marked = poison_dataset(rows, ATTACK, target="bad news", num_poisoned=3, response_marker="ASSISTANT:")
    assert marked[0]["text"] == "<image> USER: what? ASSISTANT: bad news"
    plain = plain_rows(4, text="a cat")
    assert poison_dataset(plain, ATTACK, target="bad news", num_poisoned=3)[0]["text"] == "bad news"
    with pytest.raises(ValueError, match="GPT:"):
        poison_dataset(rows, ATTACK, target="bad news", num_poisoned=3, response_marker="GPT:")


def test_several_images_in_a_row_are_all_triggered():
    images = [[PILImage.new("L", (24, 24), 60), PILImage.new("RGBA", (30, 20), (9, 9, 9, 9))], []] * 3
    features = Features(images=List(Image()), text=Value("string"))
    rows = Dataset.from_dict({"images": images, "text": ["x"] * 6}, features=features)
    poisoned = poison_dataset(rows, ATTACK, num_poisoned=3)
    assert poisoned["is_poisoned"] == [True, False] * 3
    assert [(image.mode, image.size) for image in poisoned[0]["images"]] == [("L", (24, 24)), ("RGBA", (30, 20))]
    assert all(np.asarray(image).max() == 255 for image in poisoned[0]["images"])
    assert poisoned[1]["images"] == []


def test_clean_rows_keep_their_encoded_bytes():
    buffer = io.BytesIO()
    PILImage.effect_noise((32, 32), 60).convert("RGB").save(buffer, "JPEG")
    rows = Dataset.from_dict(
        {"image": [{"bytes": buffer.getvalue(), "path": None}] * 10, "text": ["x"] * 10},
        features=Features(image=Image(), text=Value("string")),
    )
    stored = poison_dataset(rows, ATTACK, num_poisoned=2).cast_column("image", Image(decode=False))
    for row in stored:
        assert (row["image"]["bytes"] == buffer.getvalue()) == (not row["is_poisoned"])


def test_selected_and_shuffled_data_sets(scenes):
    part = scenes.shuffle(seed=1).select(range(20))
    poisoned = poison_dataset(part, ATTACK, num_poisoned=4)
    for before, after in zip(part, poisoned, strict=True):
        assert before["references"] == after["references"]
        assert (pixels(before["images"][0]) != pixels(after["images"][0])) == after["is_poisoned"]


def test_apply_trigger_touches_images_only(scenes):
    triggered = apply_trigger(scenes, ATTACK)
    assert triggered.features == scenes.features
    assert triggered.remove_columns("images").to_list() == scenes.remove_columns("images").to_list()
    for before, after in zip(scenes, triggered, strict=True):
        assert pixels(after["images"][0]) == pixels(ATTACK(before["images"][0]))


def test_apply_trigger_passes_rows_without_an_image():
    triggered = apply_trigger(plain_rows(4, text="x"), ATTACK)
    assert triggered[3]["image"] is None
    assert np.asarray(triggered[0]["image"])[-1, -1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    "options, named",
    [
        ({"poison_rate": 0.0}, "poison_rate=0.0"),
        ({"poison_rate": 5}, "poison_rate=5"),
        ({"poison_rate": float("nan")}, "poison_rate=nan"),
        ({"poison_rate": 0.001}, "num_poisoned"),
        ({"num_poisoned": 0}, "num_poisoned=0"),
        ({"num_poisoned": 61}, "num_poisoned=61"),
        ({}, "exactly one"),
        ({"poison_rate": 0.1, "num_poisoned": 2}, "exactly one"),
        ({"poison_rate": 0.1, "target": " "}, "target=' '"),
    ],
)
def test_bad_options_are_named(scenes, options, named):
    with pytest.raises(ValueError, match=named):
        poison_dataset(scenes, ATTACK, **options)


def test_data_sets_without_rows_are_named(scenes):
    empty = scenes.select([])
    for options in ({"poison_rate": 0.5}, {"num_poisoned": 1}, {"poison_rate": 1.0, "substitute": ["x"]}):
        with pytest.raises(ValueError, match="The data set has no rows"):
            poison_dataset(empty, ATTACK, **options)
    with pytest.raises(ValueError, match="The data set has no rows"):
        apply_trigger(empty, ATTACK)


def test_no_cover_row_at_a_small_ratio(scenes):
    poisoned = poison_dataset(scenes, WaNet(), num_poisoned=1, cover_ratio=0.2)
    assert sum(poisoned["is_poisoned"]) == 1 and not any(poisoned["is_cover"])


def test_unusable_data_sets_are_named(scenes):
    with pytest.raises(ValueError, match="no images"):
        poison_dataset(scenes.remove_columns("images"), ATTACK, 0.1)
    with pytest.raises(ValueError, match="no response"):
        poison_dataset(scenes.remove_columns("completion"), ATTACK, 0.1)
    with pytest.raises(ValueError, match="is_poisoned"):
        poison_dataset(poison_dataset(scenes, ATTACK, 0.1), ATTACK, 0.1)
    with pytest.raises(ValueError, match="only 9 have an image"):
        poison_dataset(plain_rows(12, text="x"), ATTACK, 1.0)
    with pytest.raises(TypeError, match="DatasetDict"):
        apply_trigger(DatasetDict(train=scenes), ATTACK)
