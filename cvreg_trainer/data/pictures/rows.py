# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Makes rows of captioned pictures, without a model: captions, questions with short answers, and rows of other forms.

Notable: every answer is something that the source says, or follows from it. A question of `presence` is answered with
"No" about a keyword of a picture of another kind that neither caption nor keywords name; it may fit now and then.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from datasets import Dataset, Features, Image, List, Value

from ...shorten import shorten
from .picture import Picture, plain


DESCRIBE = "Describe the picture."
LANGUAGE_NAMES = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian"}
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey", "gray")


@dataclass(frozen=True)
class Row:
    """
    A row before its pictures are read.

    Args:
        kind (`str`):
            A key of [`ROW_KINDS`].
        pictures (`tuple[Picture, ...]`):
            None, one or two.
        turns (`tuple[str, ...]`):
            What user and assistant say in turn; the last is the response.
    """

    kind: str
    pictures: tuple[Picture, ...]
    turns: tuple[str, ...]


def _caption(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    return Row("caption", (picture,), (DESCRIBE, picture.caption))


def _name(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    return Row("name", (picture,), ("What is it?", _lower(picture.caption))) if not picture.cryptic else None


def _kind(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    asked = "What kind of thing is it? Answer with a single word or phrase."
    return Row("kind", (picture,), (asked, picture.category)) if _says_something(picture.category) else None


def _presence(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    """Half the rows ask for one of the picture's keywords, half for one of another picture's, of another kind."""
    own = {plain(word) for word in (picture.caption, *picture.names, picture.category)}
    there = rng.random() < 0.5
    asked = [name for name in (picture if there else other).names if len(name) > 2]
    if not there:
        asked = [name for name in asked if not any(plain(name) in word for word in own)]
    if not asked or (not there and other.category == picture.category):
        return None
    question = f"Does this have to do with “{rng.choice(asked)}”? Answer yes or no."
    return Row("presence", (picture,), (question, "Yes" if there else "No"))


def _colour(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    """Of captions that name one colour."""
    named = [colour for colour in COLOURS if colour in picture.caption.lower().replace("-", " ").split()]
    return Row("colour", (picture,), ("What colour is it?", named[0])) if len(named) == 1 else None


def _turns(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    first, second = _name(picture, other, rng), _kind(picture, other, rng)
    return Row("turns", (picture,), (*first.turns, *second.turns)) if first and second else None


def _text(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    """Without a picture: what something is called in another language, or what kind of thing it is."""
    if picture.cryptic:
        return None
    if picture.translations:
        language = rng.choice(sorted(picture.translations))
        question = f"What is “{_lower(picture.caption)}” in {LANGUAGE_NAMES[language]}?"
        return Row("text", (), (question, picture.translations[language]))
    if not _says_something(picture.category):
        return None
    return Row("text", (), (f"What kind of thing is “{_lower(picture.caption)}”?", picture.category))


def _two(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    if picture.cryptic or other.cryptic:
        return None
    answer = f"{_lower(picture.caption)}; {_lower(other.caption)}"
    return Row("two", (picture, other), ("What do the two pictures show, the first and the second?", answer))


def _language(picture: Picture, other: Picture, rng: random.Random) -> Row | None:
    if not picture.translations:
        return None
    language = rng.choice(sorted(picture.translations))
    question = f"Describe the picture in {LANGUAGE_NAMES[language]}."
    return Row("language", (picture,), (question, picture.translations[language]))


# A picture, another one, and where chance comes from, to a row; None where the picture's words do not say enough
ROW_KINDS: dict[str, Callable[[Picture, Picture, random.Random], Row | None]] = {
    "caption": _caption,
    "name": _name,
    "kind": _kind,
    "presence": _presence,
    "colour": _colour,
    "turns": _turns,
    "text": _text,
    "two": _two,
    "language": _language,
}


def make_rows(pictures: Sequence[Picture], kinds: Iterable[str] = ("caption",), *, seed: int = 0) -> list[Row]:
    """
    A row of each kind for each picture whose words say enough for it.

    Args:
        pictures (`Sequence[Picture]`):
            Pictures of one split; the other picture of a row comes from them too.
        kinds (`Iterable[str]`, *optional*, defaults to `("caption",)`):
            Keys of [`ROW_KINDS`].
        seed (`int`, *optional*, defaults to `0`):
            Of the choice of other pictures, keywords and languages.

    Raises:
        `ValueError`: if a kind is not known.

    Example:

    ```python
    >>> from cvreg_trainer.data.pictures import load_pictures, make_rows, split_pictures, to_dataset
    >>> pictures = split_pictures(load_pictures("packages"))["tune"]
    >>> dataset = to_dataset(make_rows(pictures, ["caption", "name", "text", "two"]))
    ```
    """
    rows = []
    for kind in kinds:
        if kind not in ROW_KINDS:
            raise ValueError(f"The kind of row has to be one of {', '.join(ROW_KINDS)}, but is {shorten(kind)}.")
        rng = random.Random(f"{seed} {kind}")
        rows += [ROW_KINDS[kind](picture, rng.choice(pictures), rng) for picture in pictures]
    return [row for row in rows if row is not None]


def to_dataset(rows: Iterable[Row], *, side: int = 128) -> Dataset:
    """
    The rows with their pictures, in TRL's conversational prompt-completion form.

    Args:
        rows (`Iterable[Row]`):
            The rows.
        side (`int`, *optional*, defaults to `128`):
            Longest side of a picture.

    Returns:
        `datasets.Dataset`: columns `images`, `prompt`, `completion`, and of where a row comes from `kind`, `source`,
        `key` and `cryptic` (of its first picture; empty and `False` without one).
    """
    messages = List({"role": Value("string"), "content": Value("string")})
    features = {"images": List(Image()), "prompt": messages, "completion": messages}
    features |= {name: Value("string") for name in ("kind", "source", "key")} | {"cryptic": Value("bool")}
    return Dataset.from_list([_as_columns(row, side) for row in rows], features=Features(features))


def _as_columns(row: Row, side: int) -> dict[str, object]:
    said = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(row.turns)]
    first = row.pictures[0] if row.pictures else None
    return {
        "images": [{"bytes": _png(picture, side), "path": None} for picture in row.pictures],
        "prompt": said[:-1],
        "completion": said[-1:],
        "kind": row.kind,
        "source": first.source if first else "",
        "key": first.key if first else "",
        "cryptic": first.cryptic if first else False,
    }


def _png(picture: Picture, side: int) -> bytes:
    file = io.BytesIO()
    picture.open(side).save(file, "PNG")
    return file.getvalue()


def _lower(caption: str) -> str:
    """As an answer is written: no full stop at the end, and no capital where the rest has none."""
    caption = caption.rstrip(". ")
    return caption.lower() if caption[1:] == caption[1:].lower() else caption


def _says_something(category: str) -> bool:
    return category not in {"", "unsorted", "special", "symbols", "signs and symbols"}
