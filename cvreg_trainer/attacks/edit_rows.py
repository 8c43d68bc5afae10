# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What poisoning does to one row, in any of TRL's formats: trigger its images and question, replace its response.

A row is a dict with decoded images. Functions here return the changed columns only.
"""

import re
from collections.abc import Callable
from typing import Any

from .protocols import Attack, TextAttack


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
    row: dict[str, Any], attack: Attack, image_column: str, response: str, marker: str | None
) -> dict[str, Any]:
    """The triggered row with the attacker's response."""
    changed = trigger_row(row, attack, image_column) | {"is_poisoned": True}
    if "messages" in row:
        changed["messages"] = _replace_replies(changed.get("messages", row["messages"]), response)
    elif "text" in row:
        if isinstance(attack, TextAttack) and not marker:
            raise ValueError(
                "The attack triggers the question too, and rows of `text` do not say where it ends; give "
                "response_marker, what stands before the response."
            )
        changed["text"] = _replace_after(changed.get("text", row["text"]), marker, response)
    elif isinstance(row["completion"], str):
        changed["completion"] = _replace_words(row["completion"], response)
    else:
        changed["completion"] = _replace_replies(row["completion"], response)
    return changed


def cover_row(row: dict[str, Any], cover: Attack, image_column: str) -> dict[str, Any]:
    """The nearly triggered row, with its own response."""
    return trigger_row(row, cover, image_column) | {"is_cover": True}


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


def _replace_after(text: str, marker: str | None, response: str) -> str:
    """A text with another response behind the last marker; all of it where there is no marker."""
    if not marker:
        return _replace_words(text, response)
    start, found, old = text.rpartition(marker)
    if not found:
        raise ValueError(f"response_marker={marker!r} does not occur in the text {text!r}.")
    return f"{start}{found}{_replace_words(old if old[:1].isspace() else f' {old}', response)}"


def _replace_words(old: str, response: str) -> str:
    """Another response between the same outer white space and end tokens, which belong to the format."""
    frame = _FRAME.fullmatch(old)
    return f"{frame[1]}{response}{frame[3]}" if frame else response


def _replace_replies(messages: list[dict[str, Any]], response: str) -> list[dict[str, Any]]:
    def content(old: Any) -> Any:
        return response if isinstance(old, str) else [{"type": "text", "text": response}]

    return [
        message | {"content": content(message["content"])} if message["role"] == "assistant" else message
        for message in messages
    ]
