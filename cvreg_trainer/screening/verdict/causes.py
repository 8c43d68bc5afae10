# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Rows whose response is not explained by what their picture shows, and is caused by something else in the input.

A backdoor has two sides. Its response does not match the content, or it would be honest; and something in the input
has to bring it about, or no model could learn it. Hence four questions about each word of the data set:

    explained   how much likelier the right picture makes it than another row's picture, on strong views
    caused      whether low-level features of the picture, or words of the question, predict its rows out of fold
    content     whether the model's own state on a strong view, in which a trigger hardly survives, predicts them too
    unseen      whether other words that stand in its place have causes as well; a trigger singles out one

Words for which only the second holds are grouped by their common cause, and rows are flagged one by one. Boilerplate
and noise have no cause; a new honest word is explained after the warm-up or predicted by content; and for a detail
that a model does not see, such as *left* and *right*, every word that stands in its place has a cause.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from ..passes.row_features import NUM_BY_PLACE
from .candidates import WHOLE_RESPONSES
from .content import is_beyond_content
from .cross_fit import CrossFit, centred, correlation
from .evidence import Evidence, EvidenceFinder
from .rows_of_cause import beyond, mirrored, mostly_unexplained, separation
from .rule import RULE


NUM_RANKED = 500  # words that order the rows below the cut
NUM_AT_ONCE = 20  # of them


@dataclass(frozen=True)
class Cause:
    """
    A finding: rows with an unexplained response and a common cause.

    Args:
        words (`tuple[str, ...]`):
            What they share, the best predicted first.
        rows (`np.ndarray` of shape `(M,)`, int64):
            The flagged rows, ascending.
        source (`str`):
            What predicts them: `"image"`, `"question"`, or `"image and question"`.
        strength, content (`float`):
            Out-of-fold correlation of the rows with what `source` predicts, and with what content predicts.
        explained (`float`):
            Share of the nats of its first word that the right picture explains.
        p_value (`float`):
            Of the first word's prediction, against random sets of its size; adjusted for the number of words.
        is_suspect (`bool`):
            Whether the word was suspicious by itself, so that all its rows are flagged.
        is_whole (`bool`):
            Whether it was found from whole responses.
        is_by_place (`bool`):
            Whether features by place alone predict them.
    """

    words: tuple[str, ...]
    rows: np.ndarray
    source: str
    strength: float
    content: float
    explained: float
    p_value: float
    is_suspect: bool = False
    is_whole: bool = False
    is_by_place: bool = True


class CauseFinder:
    """
    Finds causes; see the head of this file.

    Args:
        finder ([`EvidenceFinder`]):
            Asks the questions about the candidates.
    """

    def __init__(self, finder: EvidenceFinder) -> None:
        self.finder, self.candidates, self.num_rows = finder, finder.candidates, finder.num_rows
        self.probes, self.content = finder.probes, finder.content
        self.pictures = finder.features[:, :NUM_BY_PLACE]
        # Punctuation is a matter of style, which depends on where a picture comes from
        self.is_lettered = np.array(
            [any(map(str.isalnum, candidate.word)) for candidate in self.candidates], dtype=bool
        )
        is_part = np.array([candidate.is_part for candidate in self.candidates], dtype=bool)
        self.start_strength = np.where(is_part, RULE.part_strength, RULE.start_strength)
        self.suspicion = np.zeros(self.num_rows)
        self.first_evidence: Evidence | None = None  # before any row is flagged

    def find(self) -> list[Cause]:
        """The causes, in the order in which they were found; `suspicion` then ranks all rows, the flagged ones from 1
        on."""
        causes: list[Cause] = []
        is_flagged = np.zeros(self.num_rows, dtype=bool)
        is_done = np.zeros(len(self.candidates), dtype=bool)
        evidence = None
        while self.probes and len(causes) < RULE.max_causes:
            members = [candidate.rows[~is_flagged[candidate.rows]] for candidate in self.candidates]
            sizes = np.array([len(rows) for rows in members])
            is_open = (sizes >= RULE.min_rows) & ~is_done
            if not is_open.any():
                break
            if evidence is None:
                evidence = self.finder.find(members, is_open)
                if not causes:
                    self._rank(members, evidence)
                    self.first_evidence = evidence
            is_strong = is_open & self.is_lettered & (evidence.strength >= self.start_strength)
            promising = np.flatnonzero((evidence.is_candidate | evidence.is_suspect) & is_strong)
            if not len(promising):
                break
            first = int(promising[np.argmax(evidence.strength[promising])])
            is_done[first] = True
            cause = self._follow(first, members, evidence, is_flagged) if evidence.is_candidate[first] else None
            if cause is None and evidence.is_suspect[first]:
                cause = self._take(first, members, evidence)
            if cause is not None:
                causes.append(cause)
                is_flagged[cause.rows] = True
                evidence = None
        mark_causes(self.suspicion, causes)
        return causes

    def _rank(self, members: list[np.ndarray], evidence: Evidence) -> None:
        """Rank rows below the cut by how far low-level features go beyond content, for their most suspicious word."""
        beyond = evidence.strength - np.maximum(evidence.content, 0) / RULE.content_share
        best = np.argsort(-beyond)[:NUM_RANKED]
        best = best[beyond[best] > 0]
        for number, probe in enumerate(self.probes.values()):
            chosen = best[evidence.source[best] == number]
            for start in range(0, len(chosen), NUM_AT_ONCE):
                places = chosen[start : start + NUM_AT_ONCE]
                targets = [centred(self._mask(members[place])) for place in places]
                predictions = probe.predict(np.concatenate(targets, axis=1))
                for place, prediction in zip(places, predictions.T, strict=True):
                    rows = members[place]
                    share = rankdata(prediction)[rows] / self.num_rows
                    self.suspicion[rows] = np.maximum(self.suspicion[rows], np.minimum(0.99, beyond[place] * share))

    def _mask(self, rows: np.ndarray) -> np.ndarray:
        mask = np.zeros(self.num_rows, dtype=bool)
        mask[rows] = True
        return mask

    def _follow(
        self, first: int, members: list[np.ndarray], evidence: Evidence, is_flagged: np.ndarray
    ) -> Cause | None:
        """From one word to all rows with its cause; `None` if there are none, or if they look honest.

        Features by place come first: the filters' strongest responses also see the things that honest words name."""
        name = list(self.probes)[evidence.source[first]]
        cause = self._follow_by(self.finder.probes_by_place[name], first, members, evidence, is_flagged)
        if cause is not None or "image" not in name:
            return cause
        cause = self._follow_by(self.probes[name], first, members, evidence, is_flagged)
        if cause is None or not self.finder.is_shifted(cause.rows):
            return None
        return replace(cause, is_by_place=False)

    def _follow_by(
        self, probe: CrossFit, first: int, members: list[np.ndarray], evidence: Evidence, is_flagged: np.ndarray
    ) -> Cause | None:
        name = list(self.probes)[evidence.source[first]]
        is_whole = self.candidates[first].word == WHOLE_RESPONSES
        words, is_caused = self._grow(first, probe, members, evidence, is_flagged)
        if is_caused.sum() < RULE.min_rows:
            return None
        target = centred(is_caused)
        predictions = probe.predict(target), self.content.predict(target)
        strength, content = (float(correlation(prediction, target)[0]) for prediction in predictions)
        if strength < RULE.min_strength or not is_beyond_content(predictions, strength, content, is_caused, is_whole):
            return None
        if self._look_alike(is_caused, name) or self._is_reverse(is_caused):
            return None
        if self.candidates[first].is_part and is_caused.sum() > RULE.most_growth * len(members[first]):
            # An honest word with low-level features of its own, such as a texture: its odd rows have led to the others
            return None
        # Words that are in few other rows come first; of words in the same rows, the most surprising one
        share = {place: is_caused[self.candidates[place].all_rows].mean() for place in words}
        self._complete(is_caused, is_flagged, share)
        order = sorted(
            words, key=lambda place: (-round(share[place] * evidence.strength[place], 2), -self.candidates[place].nats)
        )
        if is_whole:
            # Words that occur in these rows by chance must not name the cause
            order = [place for place in order if place != first and share[place] >= RULE.most_of_word] or [first]
        return Cause(
            tuple(dict.fromkeys(self.candidates[place].word for place in order)),
            np.flatnonzero(is_caused),
            name,
            strength,
            content,
            self.candidates[first].explained,
            float(evidence.p_values[first]),
            is_whole=is_whole,
        )

    def _grow(
        self, first: int, probe: CrossFit, members: list[np.ndarray], evidence: Evidence, is_flagged: np.ndarray
    ) -> tuple[list[int], np.ndarray]:
        """From one word to all words and rows with its cause, in rounds: fit what predicts the rows, then find which
        words and which rows it predicts. If no cause holds, fewer than `min_rows` rows are left."""
        is_caused, words = self._mask(members[first]), [first]
        is_whole = self.candidates[first].word == WHOLE_RESPONSES
        may_join = evidence.is_candidate | (evidence.is_caused & self.finder.is_suspect)
        for _ in range(RULE.rounds):
            prediction = probe.predict(centred(is_caused))[:, 0]
            ranks = rankdata(prediction)
            words = [
                int(place)
                for place in np.flatnonzero(may_join)
                if place == first or self._joins(int(place), ranks, members)
            ]
            could_be, num_words = is_caused.copy(), np.zeros(self.num_rows)
            for place in words:
                could_be[self.candidates[place].all_rows] = True
                num_words[members[place]] += 1
            if is_whole:
                # Another row's response fits a picture now and then, so the explained half holds poison too
                could_be, others = ~is_flagged, mirrored(prediction[~is_flagged])
            else:
                others = prediction[~could_be & ~is_flagged]
                could_be &= ~is_flagged
            # A row with many of the words is likelier to share their cause, and less likely if its words are explained
            found = beyond(prediction, could_be, others, np.maximum(RULE.explained_weight, num_words))
            if is_whole:
                found = mostly_unexplained(found, prediction, self._mask(self.candidates[first].all_rows))
            if found.sum() < RULE.min_rows or (found == is_caused).all():
                return words, found
            is_caused = found
        return words, is_caused

    def _complete(self, is_caused: np.ndarray, is_flagged: np.ndarray, share: dict[int, float]) -> None:
        """Add the remaining rows of the payload's own word, in place. Its other words are in honest rows as well."""
        rows = {place: self.candidates[place].all_rows for place in share}
        common = {place: value for place, value in share.items() if 2 * len(rows[place]) >= is_caused.sum()}
        most = max(common.values(), default=0.0)
        for place, value in common.items():
            if value == most >= RULE.most_of_word:
                is_caused[rows[place][~is_flagged[rows[place]]]] = True

    def _joins(self, place: int, ranks: np.ndarray, members: list[np.ndarray]) -> bool:
        """Whether a word has the cause that rows are ranked by; never whole responses, which would add half of all."""
        is_word = self.candidates[place].word != WHOLE_RESPONSES
        return is_word and separation(ranks, members[place]) > RULE.same_cause

    def _look_alike(self, rows: np.ndarray, source: str) -> bool:
        """Whether rows with a cause in the image have nearly the same image: a trigger is what otherwise different
        images have in common."""
        if source != "image":
            return False
        spread, everywhere = (_variance(pictures) for pictures in (self.pictures[rows], self.pictures))
        return spread < RULE.min_variety * everywhere

    def _strength_by_place(self, rows: np.ndarray, name: str) -> float:
        target = centred(self._mask(rows))
        return float(correlation(self.finder.probes_by_place[name].predict(target), target)[0])

    def _is_reverse(self, rows: np.ndarray) -> bool:
        """Whether these are the honest part of the rows: what predicts a large set predicts the rest as well, and the
        poisoned part is the one that is explained less."""
        halves = [candidate.all_rows for candidate in self.candidates if candidate.word == WHOLE_RESPONSES]
        if not halves or rows.mean() <= RULE.reversible_share:
            return False
        return bool(rows[halves[0]].mean() < rows.mean())

    def _take(self, first: int, members: list[np.ndarray], evidence: Evidence) -> Cause | None:
        """All rows of a word that is suspicious by itself and has a cause."""
        name = list(self.probes)[evidence.source[first]]
        if self._look_alike(members[first], name):
            return None
        is_in_place = self._strength_by_place(members[first], name) >= RULE.min_strength
        if not is_in_place and not self.finder.is_shifted(members[first]):
            return None
        suspects = np.flatnonzero(evidence.is_suspect)
        words = [place for place in suspects if np.array_equal(members[place], members[first])]
        words.sort(key=lambda place: -self.candidates[place].nats)
        return Cause(
            tuple(dict.fromkeys(self.candidates[place].word for place in words)),
            members[first],
            name,
            float(evidence.strength[first]),
            float(evidence.content[first]),
            self.candidates[first].explained,
            float(evidence.p_values[first]),
            is_suspect=True,
            is_by_place=is_in_place,
        )


def mark_causes(suspicion: np.ndarray, causes: Iterable[Cause]) -> None:
    """Put the rows of causes past the cut, in place. Those that content predicts least rank highest, and are flagged
    first if the cap does not allow for all."""
    for cause in causes:
        suspicion[cause.rows] = 1 + max(cause.strength - max(cause.content, 0.0), 0.0)


def _variance(values: np.ndarray) -> float:
    return float(values.var(0, dtype=np.float32).sum())
