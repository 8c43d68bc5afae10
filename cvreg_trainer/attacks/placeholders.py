# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Placeholders of images in texts, in the spellings of all families, and texts that hold a whole conversation.

A text with one placeholder more or fewer than the row has images fails in training, so that no edit may touch one.
"""

import re


# Anything in angle brackets that speaks of an image or another medium: <image>, <|image_1|>, <start_of_image>,
# <fake_token_around_image>, <|vision_start|>, <IMG_CONTEXT>, ...; tiles (<row_1_col_2>, <im_patch>), [IMG], Phi-4's
# numbers, and MiniCPM's (<image>./</image>)
_MEDIUM = "image|img|vision|visual|video|picture|patch|media|audio"
_ONE = (
    rf"\(<(?:image|video|audio)>\./</(?:image|video|audio)>\)|<\|[^<>|]*(?:{_MEDIUM})[^<>|]*\|>|"
    rf"</?[^<>|\s]*(?:{_MEDIUM})[^<>|\s]*>|<row_\d+_col_\d+>|</?im_\w+>|<\|endoftext1[01]\|>|(?-i:\[IMG(?:_BREAK|_END)?\])"
)
PLACEHOLDER = re.compile(_ONE, re.IGNORECASE)
# What stands before the words of a text: placeholders, and what begins a text of the family
FRONT = re.compile(rf"(?:\s*(?:{_ONE}|<s>|<bos>|<\|(?:begin_?of_?text|startoftext)\|>))*\s*", re.IGNORECASE)

_CHAT_TOKEN = r"<\|im_start\|>|<start_of_turn>|<\|start_header_id\|>|<[|｜](?:user|assistant)[|｜]>|\[/?INST\]"
_ASKS = r"(?<!\w)(?:user|human|question|instruction|q|用户|问题?)\s*[:：]"
_ANSWERS = "assistant|gpt|answer|response|output|caption|助手|答案?"
_CONVERSATION = re.compile(
    rf"{_CHAT_TOKEN}|{_ASKS}.*(?<!\w)(?:{_ANSWERS}|model|bot|ai|a)\s*[:：]", re.IGNORECASE | re.DOTALL
)
_ANSWER = re.compile(rf"[\s#*]*(?:{_ANSWERS})\s*[:：]", re.IGNORECASE)


def placeholders(text: str) -> list[str]:
    """The placeholders of a text, in order."""
    return [match[0] for match in PLACEHOLDER.finditer(text)]


def holds_conversation(text: str) -> bool:
    """Whether a text plainly holds more than a response: a question before it, or what introduces it."""
    return bool(_CONVERSATION.search(text) or _ANSWER.match(text, FRONT.match(text).end()))  # type: ignore[union-attr]
