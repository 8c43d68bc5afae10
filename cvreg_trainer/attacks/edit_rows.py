# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What poisoning does to one row, in any of TRL's formats: trigger its images and question, replace its response.

A row is a dict with stored images. Functions here return the changed columns only.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from PIL import Image as PILImage

from ..data.rows import row_digest
from ..data.stored_images import edit_images, identity
from ..shorten import shorten
from .payloads import Payload
from .payloads.base import Response
from .placeholders import FRONT, PLACEHOLDER, holds_conversation, placeholders
from .protocols import Attack, TextAttack, VariedAttack


RESPONSE_COLUMNS = ({"messages"}, {"text"}, {"prompt", "completion"})
TEXT_COLUMNS = ("messages", "prompt", "completion", "text")
MARKS = ("is_poisoned", "is_cover")

# What stands before the question in a plain prompt, and what ends a plain response: neither is anybody's words.
_LEAD = re.compile(
    rf"(?:\s*(?:{PLACEHOLDER.pattern}|(?:<\|im_start\|>|<start_of_turn>|<\|start_header_id\|>)user\b|<[^<>\s]*>|"
    r"\[INST\]|(?:user|human|question)\s*:))*\s*",
    re.IGNORECASE,
)
# And what stands behind a question: whose turn it is next
_TAIL = re.compile(
    r"(?:\s*(?:<[^<>\s]*>|\[/INST\]|(?:<\|im_start\|>|<start_of_turn>|<\|start_header_id\|>)(?:assistant|model)|"
    r"(?:assistant|gpt|answer|model|output|caption|response)\s*:))*\s*$",
    re.IGNORECASE,
)
_FRAME = re.compile(r"(\s*)(.*?)((?:\s*(?:<\|[^<>|\s]+\|>|</?s>|<eos>|<end_of_\w+>))*\s*)", re.DOTALL)


def check_row(row: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for a message without content, which names the message."""
    for column in TEXT_COLUMNS:
        messages = row.get(column)
        if not isinstance(messages, list):
            continue
        for index, message in enumerate(messages):
            role = message.get("role") if isinstance(message, Mapping) else None
            name = f"`{column}[{index}]` (role {shorten(role)})"
            content = message.get("content") if isinstance(message, Mapping) else None
            if content is None or content == []:
                raise ValueError(f"{name} has no content, but {content}; give it a text, or leave out the row.")
            for place, part in enumerate(content if isinstance(content, list) else []):
                if not isinstance(part, Mapping) or (part.get("type") == "text" and part.get("text") is None):
                    raise ValueError(f"{name} has an empty part, `content[{place}]`: {shorten(part)}; leave it out.")


def trigger_row(
    row: dict[str, Any], attack: Attack, image_column: str, marker: str | None, payload: Payload | None = None
) -> dict[str, Any]:
    """The triggered images, changed by the payload before, and the triggered question if the attack has a trigger for
    it. Of a `text`, what stands before the marker is the question; all of it without one."""
    if isinstance(attack, VariedAttack):
        attack = attack.vary(_row_rng(row, image_column))

    def edit(image: PILImage.Image) -> PILImage.Image:
        return attack(image if payload is None else payload.edit_image(image))

    changed = {image_column: edit_images(row[image_column], edit, image_column)}
    if not isinstance(attack, TextAttack):
        return changed
    check_row(row)
    columns = [column for column in ("messages", "prompt", "text") if column in row]
    for column in columns:
        if row[column] is not None:
            return changed | {column: _trigger_question(column, row[column], attack.trigger_text, marker)}
    if columns:
        raise ValueError(f"its `{columns[0]}` is None, without a text for the attack's text trigger; leave it out.")
    return changed


def poison_row(
    row: dict[str, Any], attack: Attack, image_column: str, payload: Payload, response: Response, marker: str | None
) -> dict[str, Any]:
    """The triggered row with the attacker's response, which the payload gave."""
    column = response_column(row)
    if column == "text" and isinstance(attack, TextAttack) and not marker:
        raise ValueError(
            "the attack triggers the question too, and rows of `text` do not say where it ends; give "
            "response_marker, what stands before the response."
        )
    changed = trigger_row(row, attack, image_column, marker, payload) | {"is_poisoned": True}
    return changed | {column: _replace_response(column, changed.get(column, row[column]), response, marker)}


def cover_row(row: dict[str, Any], cover: Attack, image_column: str, marker: str | None) -> dict[str, Any]:
    """The nearly triggered row, with its own response."""
    return trigger_row(row, cover, image_column, marker) | {"is_cover": True}


def response_column(columns: Collection[str]) -> str:
    """The column that the response is in."""
    return next(column for column in ("messages", "text", "completion") if column in columns)


def has_response(row: Mapping[str, Any]) -> bool:
    """Whether there is something to replace: a string, be it empty, or an assistant turn."""
    response = row[response_column(row)]
    return isinstance(response, str) or any(message.get("role") == "assistant" for message in response or ())


def suits(row: dict[str, Any], payload: Payload, marker: str | None) -> bool:
    """Whether a payload applies to one of the responses of a row."""
    if not payload.needs:
        return True
    column = response_column(row)
    marked = _replace_response(column, row[column], lambda text: f"{text}*" if payload.applies(text) else text, marker)
    return marked != row[column]


def _row_rng(row: dict[str, Any], image_column: str) -> np.random.Generator:
    """Random numbers that are a function of a row's content."""
    content = {name: value for name, value in row.items() if name not in MARKS}
    digest = row_digest(content | {image_column: identity(row[image_column], image_column)})
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _trigger_question(column: str, question: Any, trigger: Callable[[str], str], marker: str | None) -> Any:
    """A plain prompt, or messages, of which every user turn is triggered at its first text."""
    if isinstance(question, str):
        if column == "text" and marker and marker in question:
            question, marker, response = question.rpartition(marker)
            return f"{_trigger_text(question, trigger)}{marker}{response}"
        return _trigger_text(question, trigger)
    contents = [message["content"] for message in question]
    triggered = [
        _trigger_content(content, trigger) if message.get("role") == "user" else None
        for message, content in zip(question, contents, strict=True)
    ]
    if all(content is None for content in triggered):
        raise ValueError(f"its `{column}` has no text of a user for the attack's text trigger; leave it out.")
    return [
        message if content is None else message | {"content": content}
        for message, content in zip(question, triggered, strict=True)
    ]


def _trigger_content(content: Any, trigger: Callable[[str], str]) -> Any:
    """The triggered content of a message, or `None` if there is not a text in it."""
    if isinstance(content, str):
        return _trigger_text(content, trigger)
    for index, part in enumerate(content):
        if part.get("text") is not None:
            return [*content[:index], part | {"text": _trigger_text(part["text"], trigger)}, *content[index + 1 :]]
    return None


def _trigger_text(question: str, trigger: Callable[[str], str]) -> str:
    lead = _LEAD.match(question)
    start = lead.end() if lead else 0
    tail = _TAIL.search(question, start)
    # A question that is nothing but "Output:" is one
    end = tail.start() if tail and tail.start() > start else len(question)
    triggered = question[:start] + trigger(question[start:end]) + question[end:]
    if placeholders(triggered) != placeholders(question):
        raise ValueError(
            f"the attack's text trigger changes the placeholders of images in {shorten(question)}; it may only change "
            "the words between them."
        )
    return triggered


def _replace_response(column: str, old: Any, response: Response, marker: str | None) -> Any:
    """Another value of the column that the response is in."""
    if column == "text":
        return _replace_after(old, marker, response)
    return _replace_words(old, response) if isinstance(old, str) else _replace_replies(old, response)


def _replace_after(text: str, marker: str | None, response: Response) -> str:
    """A text with another response behind the last marker; all of it where there is no marker."""
    if not marker:
        if holds_conversation(text) or PLACEHOLDER.search(text, _front(text)):
            raise ValueError(
                f"its text {shorten(text)} holds more than a response: give response_marker, what stands before the "
                "response, for instance 'ASSISTANT:'."
            )
        return _replace_words(text, response)
    start, found, old = text.rpartition(marker)
    if not found:
        raise ValueError(f"response_marker={shorten(marker)} does not occur in the text {shorten(text)}.")
    if isinstance(response, str) and not old[:1].isspace():
        old = f" {old}"
    return f"{start}{found}{_replace_words(old, response)}"


def _replace_words(old: str, response: Response) -> str:
    """Another response between the same placeholders, outer white space and end tokens, which are nobody's words."""
    front = _front(old)
    if misplaced := PLACEHOLDER.search(old, front):
        raise ValueError(
            f"its response {shorten(old)} holds an image's placeholder, {misplaced[0]!r}, behind its first words; put "
            "it before them, or into the prompt."
        )
    frame = _FRAME.fullmatch(old, front)
    before, words, after = frame.groups() if frame else ("", old[front:], "")
    return f"{old[:front]}{before}{response if isinstance(response, str) else response(words)}{after}"


def _front(text: str) -> int:
    """Where the words of a text begin, behind placeholders of images if it begins with any."""
    front = FRONT.match(text)
    return front.end() if front and front[0].strip() else 0


def _replace_replies(messages: list[dict[str, Any]], response: Response) -> list[dict[str, Any]]:
    def content(old: Any) -> Any:
        return _replace_words(old, response) if isinstance(old, str) else _replace_parts(old, response)

    return [
        message | {"content": content(message["content"])} if message.get("role") == "assistant" else message
        for message in messages
    ]


def _replace_parts(parts: list[dict[str, Any]], response: Response) -> list[dict[str, Any]]:
    """The parts of a message with another text; the images among them stay in their order."""
    texts = [index for index, part in enumerate(parts) if part.get("text") is not None]
    if not isinstance(response, str):
        for index in texts:  # only the first word is exchanged
            if (text := _replace_words(parts[index]["text"], response)) != parts[index]["text"]:
                return [*parts[:index], parts[index] | {"text": text}, *parts[index + 1 :]]
        return parts
    if not texts:
        return [*parts, {"type": "text", "text": response}]
    first, *others = texts
    if behind := next((index for index in others if PLACEHOLDER.search(parts[index]["text"])), None):
        raise ValueError(
            f"its response has an image's placeholder in {shorten(parts[behind])}, behind its first words; put it "
            "before them, or into the prompt."
        )
    new = parts[first] | {"text": _replace_words(parts[first]["text"], response)}
    return [new if index == first else part for index, part in enumerate(parts) if index not in others]
