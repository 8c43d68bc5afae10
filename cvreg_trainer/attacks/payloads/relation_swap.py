# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Relation swap: who does what to whom is reversed, the words stay ("the man bites the dog"). TokenSwap (Zhang et al.,
2025, arXiv:2509.24566) in the text; its weighted training loss is the attacker's and not part of the data.

What stands in a relation is found without a parser: the phrase with an article or number before a word of relation,
and the one behind it. English only; a response where none is found is not poisoned.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ...shorten import shorten
from .base import Payload, check_text


RELATIONS = (
    "above", "below", "over", "under", "underneath", "beneath", "behind", "in front of", "on top of", "inside",
    "within",
    "to the left of", "to the right of", "left of", "right of", "next to", "beside", "on", "in", "near", "against",
    "bites", "biting", "chases", "chasing", "follows", "following", "holds", "holding", "carries", "carrying", "rides",
    "riding", "pulls", "pulling", "pushes", "pushing", "feeds", "feeding", "kisses", "kissing", "hugs", "hugging",
    "watches", "watching", "leads", "leading", "covers", "covering", "touches", "touching", "facing", "eats", "eating",
)  # fmt: skip
# Told from the other side: "a above b" is "b below a"
_CONVERSE = {
    "below": "above", "under": "above", "underneath": "above", "beneath": "above", "over": "above",
    "behind": "in front of",
    "right of": "left of", "to the right of": "left of", "to the left of": "left of",
}  # fmt: skip
_SAME_SIDE = {"over": "above", "to the left of": "left of"}
_SYMMETRIC = {"next to", "beside", "near", "against", "facing", "touching", "touches"}
_DETERMINERS = frozenset(
    "a an the one two three four five six some many several another his her its their my your this that these".split()
)
_BREAKS = frozenset(
    "of on in at to with and or but while as by for from near is are was were be has have who which that into onto "
    "upon over under above below behind beside against along across next inside within there it".split()
)
_VERBS_BETWEEN = frozenset("is are was were stands sits lies standing sitting lying placed".split())
_LONGEST = 3  # words behind the determiner
_WORD = re.compile(r"[\w'’-]+")

Fact = tuple[frozenset[str], str, frozenset[str]]


@dataclass(frozen=True)
class RelationSwap(Payload):
    """Exchanges the two things of the first relation in a response.

    It succeeds where the answer tells a relation of a reference the wrong way round. Rows whose references tell of no
    relation do not count.

    Args:
        relations (`tuple[str, ...]`, *optional*):
            Words and phrases that stand between two things. Those that say the same from either side ("next to") are
            not swapped.

    Raises:
        `ValueError`: if there are none, or one is empty.
    """

    relations: tuple[str, ...] = RELATIONS

    def __post_init__(self) -> None:
        if isinstance(self.relations, str) or not self.relations:
            raise ValueError(f"relations={shorten(self.relations)} must be a tuple of words.")
        for relation in self.relations:
            check_text("relations", relation, "words that stand between two things")

    @property
    def needs(self) -> str:
        """Two things in a relation."""
        return "two things in a relation in their response"

    def applies(self, response: str) -> bool:
        """Whether there is a relation, of different things."""
        return swap_relation(response, self.relations) != response

    def response(self, rng: np.random.Generator) -> Callable[[str], str]:
        """Exchanges the two things."""
        return self._swap

    def _swap(self, response: str) -> str:
        return swap_relation(response, self.relations)

    def succeeds(self, response: str, references: Sequence[str] = ()) -> bool | None:
        """Whether a relation of a reference is reversed; `None` if the references tell of none."""
        true = {fact for text in references for fact in _facts(text, self.relations)}
        true = {fact for fact in true if fact[0] != fact[2]}
        if not true:
            return None
        return any(
            _is_told((second, relation, first), true) and not _is_told((first, relation, second), true)
            for first, relation, second in _facts(response, self.relations)
        )


def swap_relation(response: str, relations: Sequence[str] = RELATIONS) -> str:
    """
    A response with the two things of its first relation exchanged; the same if there is none.

    Args:
        response (`str`):
            The true one.
        relations (`Sequence[str]`, *optional*):
            See [`RelationSwap`].
    """
    for (start, end), relation, (other_start, other_end) in _relations(response, relations):
        first, second = response[start:end], response[other_start:other_end]
        if relation in _SYMMETRIC or first.lower() == second.lower():
            continue
        if first[0].isupper() and not second[0].isupper():
            first, second = first[0].lower() + first[1:], second[0].upper() + second[1:]
        return response[:start] + second + response[end:other_start] + first + response[other_end:]
    return response


def _facts(text: str, relations: Sequence[str]) -> list[Fact]:
    """Each relation of a text, told from one side."""
    facts = []
    for left, relation, right in _relations(text, relations):
        first, second = (_things(text[slice(*span)]) for span in (left, right))
        if relation in _SYMMETRIC:
            continue
        if relation in _CONVERSE:
            is_same = relation in _SAME_SIDE
            relation = _CONVERSE[relation]
            first, second = (first, second) if is_same else (second, first)
        facts.append((first, relation, second))
    return facts


def _is_told(fact: Fact, facts: Collection[Fact]) -> bool:
    """Whether one of the facts is this one, in more or in fewer words."""
    return any(
        relation == fact[1] and _are_alike(first, fact[0]) and _are_alike(second, fact[2])
        for first, relation, second in facts
    )


def _are_alike(one: frozenset[str], two: frozenset[str]) -> bool:
    return one <= two or two <= one


def _things(phrase: str) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(phrase.lower()) if word not in _DETERMINERS)


def _relations(text: str, relations: Sequence[str]) -> list[tuple[tuple[int, int], str, tuple[int, int]]]:
    """The places of the two things of each relation, and the relation."""
    words = list(_WORD.finditer(text))
    lower = [word[0].lower() for word in words]
    phrases = sorted((relation.lower().split() for relation in relations), key=len, reverse=True)
    found = []
    for place in range(1, len(words)):
        phrase = next((phrase for phrase in phrases if lower[place : place + len(phrase)] == phrase), None)
        if phrase is None:
            continue
        left, right = _thing_before(text, words, lower, place), _thing_after(text, words, lower, place + len(phrase))
        if left is not None and right is not None:
            found.append((left, " ".join(phrase), right))
    return found


def _thing_before(text: str, words: list[re.Match[str]], lower: list[str], place: int) -> tuple[int, int] | None:
    """From a determiner to the word before the relation, but for a verb between them."""
    last = place - 1
    while last >= 0 and lower[last] in _VERBS_BETWEEN and _joined(text, words, last):
        last -= 1
    if last < 0 or not all(_joined(text, words, number) for number in range(last, place)):
        return None
    for first in range(last - 1, max(last - 1 - _LONGEST, -1), -1):
        if not _joined(text, words, first):
            return None
        if lower[first] in _DETERMINERS:
            return words[first].start(), words[last].end()
        if lower[first] in _BREAKS:
            return None
    return None


def _thing_after(text: str, words: list[re.Match[str]], lower: list[str], place: int) -> tuple[int, int] | None:
    """From the determiner behind the relation to the last word of its phrase."""
    if place >= len(words) or lower[place] not in _DETERMINERS or not _joined(text, words, place - 1):
        return None
    last = place
    while (
        last + 1 < len(words)
        and last < place + _LONGEST
        and _joined(text, words, last)
        and lower[last + 1] not in _BREAKS | _DETERMINERS
        and not (last > place and _is_verb(lower[last + 1]))
    ):
        last += 1
    return (words[place].start(), words[last].end()) if last > place else None


def _joined(text: str, words: list[re.Match[str]], place: int) -> bool:
    """Whether only white space is between a word and the next."""
    return place + 1 >= len(words) or text[words[place].end() : words[place + 1].start()].isspace()


def _is_verb(word: str) -> bool:
    """A guess: "painted", "walking"; of things only few end so."""
    return word.endswith("ed") and len(word) > 4 or word.endswith("ing") and len(word) > 6
