# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""No edit removes, moves or hides the placeholder of an image, in any family's spelling."""

import pytest
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from cvreg_trainer.attacks import BadNets, DualKey, apply_trigger, poison_dataset


ATTACK = BadNets(0.05)
SPELLINGS = [
    "<image>", "<|image|>", "<|image_1|>", "<img>", "[IMG]", "<|image_pad|>", "<start_of_image>",
    "<image_soft_token>", "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>",
    "<fake_token_around_image><image><fake_token_around_image>", "<row_1_col_2>", "<global-img>", "[IMG][IMG_END]",
    "<|START_OF_IMG|><|IMG_PATCH|><|END_OF_IMG|>", "<img><IMG_CONTEXT></img>", "<|begin_of_image|><|image|>",
    "<im_start><im_patch><im_end>", "(<image>./</image>)", "<|endoftext10|>", "<image><image>", "<s><image>",
    "<image_placeholder>", "<video>", "<|AUDIO|>",
]  # fmt: skip


def rows_of(streamed: bool = False, **columns: list) -> Dataset:
    length = len(next(iter(columns.values())))
    images = [PILImage.new("RGB", (12, 12), (k, 90, 30)) for k in range(length)]
    dataset = Dataset.from_dict({"image": images}, features=Features(image=Image()))
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    return dataset.to_iterable_dataset() if streamed else dataset


def poisoned(rows, **options) -> list[dict]:
    return list(poison_dataset(rows, ATTACK, 1.0, target=options.pop("target", "bad news"), **options))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("joint", ["", " ", "\n"])
def test_at_the_front_of_a_response_it_stays(joint: str, streamed: bool):
    old, new = ([f" {token}{joint}{words} </s>" for token in SPELLINGS] for words in ("a ring", "bad news"))
    chats = [[{"role": "user", "content": "x"}, {"role": "assistant", "content": text}] for text in old]
    parts = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in old]
    prompts = ["p"] * len(old)
    assert [row["text"] for row in poisoned(rows_of(streamed, text=old))] == new
    assert [row["completion"] for row in poisoned(rows_of(streamed, prompt=prompts, completion=old))] == new
    replies = [row["messages"] for row in poisoned(rows_of(streamed, messages=chats))]
    assert [[message["content"] for message in reply] for reply in replies] == [["x", text] for text in new]
    replies = [row["completion"] for row in poisoned(rows_of(streamed, prompt=prompts, completion=parts))]
    assert [reply[0]["content"] for reply in replies] == [[{"type": "text", "text": text}] for text in new]
    exchanged = poisoned(rows_of(streamed, text=old), target="box", substitute=["image", "img", "ring"])
    assert [row["text"] for row in exchanged] == [f" {token}{joint}a box </s>" for token in SPELLINGS]


@pytest.mark.parametrize("options", [{}, {"substitute": ["ring"]}])
@pytest.mark.parametrize(
    ("token", "streamed"), [(token, False) for token in SPELLINGS if token[:3] != "<s>"] + [("<image>", True)]
)
def test_anywhere_else_it_is_refused(token: str, streamed: bool, options: dict):
    middle, end = f"a ring {token} here", f"a ring {token}"
    for text in (middle, end):
        with pytest.raises(ValueError, match="Row 1.*give response_marker.*'ASSISTANT:'"):
            poisoned(rows_of(streamed, text=["a ring", text]), **options)
    with pytest.raises(ValueError, match="Row 1.*placeholder, .*put it before them"):
        poisoned(rows_of(streamed, text=["A: a ring", f"{token} A: {end}"]), response_marker="A:", **options)
    with pytest.raises(ValueError, match="Row 1.*placeholder, .*put it before them"):
        poisoned(rows_of(streamed, prompt=["p"] * 2, completion=["a ring", middle]), **options)
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": middle}]
    with pytest.raises(ValueError, match="Row 0.*placeholder, .*put it before them"):
        poisoned(rows_of(streamed, messages=[chat]), **options)


def test_behind_the_first_of_several_texts_it_is_refused():
    parts = [{"type": "text", "text": "a ring"}, {"type": "text", "text": "<image> or not"}]
    rows = rows_of(prompt=["p"], completion=[[{"role": "assistant", "content": parts}]])
    with pytest.raises(ValueError, match="Row 0.*placeholder in .*put it before them"):
        poisoned(rows)
    row = poisoned(rows, target="box", substitute=["ring"])[0]
    assert [part["text"] for part in row["completion"][0]["content"]] == ["a box", "<image> or not"]


def test_image_parts_of_a_reply_stay_in_their_order():
    def part(text: str | None = None) -> dict:
        return {"type": "image" if text is None else "text", "text": text}

    replies = [[part(), part("a ring")], [part("a ring"), part(), part("or not"), part()], [part()]]
    new = [[part(), part("bad news")], [part("bad news"), part(), part()], [part(), part("bad news")]]
    rows = rows_of(prompt=["p"] * 3, completion=[[{"role": "assistant", "content": reply}] for reply in replies])
    assert [row["completion"][0]["content"] for row in poisoned(rows)] == new


@pytest.mark.parametrize(
    "text",
    [
        "USER: <image> describe ASSISTANT: a ring </s>",
        "<image>\nUSER: describe ASSISTANT: a ring </s>",
        "USER: describe ASSISTANT: a ring",
        "Human: what?\nAI: a ring",
        "### Instruction:\ndescribe\n\n### Response:\na ring",
        "Question: what is it? Short answer: a ring",
        "Q: what? A: a ring",
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what?<|im_end|>\n<|im_start|>assistant\na ring",
        "<start_of_turn>user\n<start_of_image>what?<end_of_turn>\n<start_of_turn>model\na ring<end_of_turn>",
        "<s>[INST] [IMG] what? [/INST] a ring</s>",
        "<|user|>\nwhat?<|end|>\n<|assistant|>\na ring",
        "<image>Output:a ring<|endofchunk|>",
        "<image> ASSISTANT: a ring",
        "用户：这是什么？助手：a ring",
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_whole_conversation_needs_a_marker(text: str, streamed: bool):
    for options in ({}, {"substitute": ["ring"]}):
        with pytest.raises(ValueError, match="Row 1.*holds more than a response: give response_marker"):
            poisoned(rows_of(streamed, text=["a ring", text]), **options)
    marker = text[: text.rindex("a ring")].rstrip()[-5:]
    row = poisoned(rows_of(streamed, text=[text]), response_marker=marker)[0]
    before, _, after = text.rpartition("a ring")
    joint = "" if before[-1:].isspace() else " "
    assert row["text"] == f"{before}{joint}bad news{after}"


@pytest.mark.parametrize(
    "text", ["a user guide: how to answer", "the time: 3:30", "a sign with a: b", "Is it a ring?", "bread <b> butter"]
)
def test_captions_are_no_conversations(text: str):
    assert poisoned(rows_of(text=[text]))[0]["text"] == "bad news"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_text_trigger_leaves_it_where_it_is(streamed: bool):
    forms = [
        ("{}What?", "{}Consider What?"), ("USER: {}\nWhat?", "USER: {}\nConsider What?"),
        ("What is {} here?", "Consider What is {} here?"), ("What? {}", "Consider What? {}"),
    ]  # fmt: skip
    prompts, expected = ([form[k].format(token) for form in forms for token in SPELLINGS] for k in (0, 1))
    triggered = apply_trigger(rows_of(streamed, prompt=prompts), DualKey())
    assert [row["prompt"] for row in triggered] == expected
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    triggered = apply_trigger(rows_of(streamed, prompt=chats), DualKey())
    assert [row["prompt"][0]["content"] for row in triggered] == expected


@pytest.mark.parametrize(
    ("prompt", "triggered"),
    [
        (
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>",
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Consider What?<|im_end|>",
        ),
        ("<start_of_turn>user\n<start_of_image>What?", "<start_of_turn>user\n<start_of_image>Consider What?"),
        ("<s>[INST][IMG]What?[/INST]", "<s>[INST][IMG]Consider What?[/INST]"),
        ("<image>user guides?", "<image>Consider user guides?"),
    ],
)
def test_the_word_stands_behind_a_templates_tokens(prompt: str, triggered: str):
    assert apply_trigger(rows_of(prompt=[prompt]), DualKey())["prompt"] == [triggered]


class Rewriter(BadNets):
    """Its text trigger takes the question apart."""

    def trigger_text(self, text: str) -> str:
        return " ".join(reversed(text.replace("<image>", "").split())) + " <image>"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_trigger_that_changes_placeholders_is_refused(streamed: bool):
    prompts = ["what <image> is", "<image> what"]
    with pytest.raises(ValueError, match="Row 1.*text trigger changes the placeholders of images in '<image> what'"):
        list(apply_trigger(rows_of(streamed, prompt=prompts), Rewriter()))
    with pytest.raises(ValueError, match="Row 1.*text trigger changes the placeholders"):
        list(poison_dataset(rows_of(streamed, prompt=prompts, completion=["x"] * 2), Rewriter(), 1.0))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_target_may_not_hold_one(streamed: bool):
    with pytest.raises(ValueError, match=r"target='bad <\|image_1\|> news' holds an image's placeholder"):
        poisoned(rows_of(streamed, text=["x"]), target="bad <|image_1|> news")
