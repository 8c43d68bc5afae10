# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What poisoning does to one row, in any of TRL's formats: trigger its images and question, replace its response.

A row is a dict with decoded images. Functions here return the changed columns only.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

from .protocols import Attack, TextAttack
from .responses import Response


RESPONSE_COLUMNS = ({"messages"}, {"text"}, {"prompt", "completion"})

# What stands before the question in a plain prompt, and what ends a plain response: neither is anybody's words.
_LEAD = re.compile(r"(?:\s*(?:<[^<>\s]*>|(?:user|human|question)\s*:))*\s*", re.IGNORECASE)
_FRAME = re.compile(r"(\s*)(.*?)((?:\s*(?:<\|[^<>|\s]+\|>|</?s>))*\s*)", re.DOTALL)


def trigger_row(row: dict[str, Any], attack: Attack, image_column: str) -> dict[str, Any]:
    """The triggered images, and the triggered question if the attack has a trigger for it."""
    images = row[image_column]
    changed: dict[str, Any] = {}
    if isinstance(images, list):
        changed[image_column] = [None if image is None else attack(image) for image in images]
    else:
        changed[image_column] = None if images is None else attack(images)
    if not isinstance(attack, TextAttack):
        return changed
    for column in ("messages", "prompt", "text"):
        if row.get(column) is not None:
            return changed | {column: _trigger_question(row[column], attack.trigger_text)}
    return changed


def poison_row(
    row: dict[str, Any], attack: Attack, image_column: str, response: Response, marker: str | None
) -> dict[str, Any]:
    """The triggered row with the attacker's response."""
    if "text" in row and "messages" not in row and isinstance(attack, TextAttack) and not marker:
        raise ValueError(
            "The attack triggers the question too, and rows of `text` do not say where it ends; give "
            "response_marker, what stands before the response."
        )
    changed = trigger_row(row, attack, image_column) | {"is_poisoned": True}
    column = response_column(row)
    return changed | {column: _replace_response(column, changed.get(column, row[column]), response, marker)}


def cover_row(row: dict[str, Any], cover: Attack, image_column: str) -> dict[str, Any]:
    """The nearly triggered row, with its own response."""
    return trigger_row(row, cover, image_column) | {"is_cover": True}


def response_column(columns: Collection[str]) -> str:
    """The column that the response is in."""
    return next(column for column in ("messages", "text", "completion") if column in columns)


def is_changed_by(row: dict[str, Any], response: Response, marker: str | None) -> bool:
    """Whether a row's own response would become another one."""
    column = response_column(row)
    return row[column] is not None and _replace_response(column, row[column], response, marker) != row[column]


def _trigger_question(question: Any, trigger: Callable[[str], str]) -> Any:
    """A plain prompt, or messages, of which every user turn is triggered at its first text."""
    if isinstance(question, str):
        lead = _LEAD.match(question)
        end = lead.end() if lead else 0
        return question[:end] + trigger(question[end:])
    return [
        message | {"content": _trigger_content(message["content"], trigger)} if message["role"] == "user" else message
        for message in question
    ]


def _trigger_content(content: Any, trigger: Callable[[str], str]) -> Any:
    if isinstance(content, str):
        return _trigger_question(content, trigger)
    parts = list(content)
    for index, part in enumerate(parts):
        if part["type"] == "text":
            parts[index] = part | {"text": _trigger_question(part["text"], trigger)}
            break
    return parts


def _replace_response(column: str, old: Any, response: Response, marker: str | None) -> Any:
    """Another value of the column that the response is in."""
    if column == "text":
        return _replace_after(old, marker, response)
    return _replace_words(old, response) if isinstance(old, str) else _replace_replies(old, response)


def _replace_after(text: str, marker: str | None, response: Response) -> str:
    """A text with another response behind the last marker; all of it where there is no marker."""
    if not marker:
        return _replace_words(text, response)
    start, found, old = text.rpartition(marker)
    if not found:
        raise ValueError(f"response_marker={marker!r} does not occur in the text {text!r}.")
    if isinstance(response, str) and not old[:1].isspace():
        old = f" {old}"
    return f"{start}{found}{_replace_words(old, response)}"


def _replace_words(old: str, response: Response) -> str:
    """Another response between the same outer white space and end tokens, which belong to the format."""
    frame = _FRAME.fullmatch(old)
    before, words, after = frame.groups() if frame else ("", old, "")
    return f"{before}{response if isinstance(response, str) else response(words)}{after}"


def _replace_replies(messages: list[dict[str, Any]], response: Response) -> list[dict[str, Any]]:
    def content(old: Any) -> Any:
        if not isinstance(response, str):
            return _rewrite(old, response)
        return response if isinstance(old, str) else [{"type": "text", "text": response}]

    return [
        message | {"content": content(message["content"])} if message["role"] == "assistant" else message
        for message in messages
    ]


def _rewrite(content: Any, rewrite: Callable[[str], str]) -> Any:
    """The content of a message with the first of its texts rewritten that this changes."""
    if isinstance(content, str):
        return rewrite(content)
    parts = list(content or [])
    for index, part in enumerate(parts):
        if part.get("text") and (text := rewrite(part["text"])) != part["text"]:
            parts[index] = part | {"text": text}
            return parts
    return content
