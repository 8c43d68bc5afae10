# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The questions that are asked of each set of rows: what causes it, whether content does, whether its rivals have
causes, and whether its word is suspicious by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.stats import norm

from ..passes.row_features import NUM_BY_PLACE, PICTURE_PARTS
from .added_words import are_added
from .candidates import WHOLE_RESPONSES, Candidate
from .content import Content, content_limit
from .cross_fit import CrossFit, adjusted_p_values, benjamini_hochberg, centred, partial_correlation, sets_of
from .rivals import Rivals
from .rule import RULE
from .sources import ProbeFeatures, beyond_question, words_of_questions


LEAST_SPREAD = 0.01  # standard deviation of a filter's strongest responses; with less, it hardly responds to anything


@dataclass(frozen=True)
class Evidence:
    """
    What is known of `K` sets, arrays of shape `(K,)`.

    Args:
        strength (`np.ndarray`):
            Out-of-fold correlation of each set with what the source predicts.
        source (`np.ndarray`):
            What predicts it best, as an index into the probes.
        p_values (`np.ndarray`):
            Of the strength, adjusted for the number of sets.
        content (`np.ndarray`):
            Correlation with what content predicts.
        is_caused, is_content, is_unseen (`np.ndarray`, bool):
            Whether there is a cause at all, whether content predicts the set about as well, and whether its rivals
            also have causes beyond content; see [`Rivals`].
        is_candidate, is_suspect (`np.ndarray`, bool):
            Whether it may start a finding: on this evidence, or as a word that is suspicious by itself.
    """

    strength: np.ndarray
    source: np.ndarray
    p_values: np.ndarray
    content: np.ndarray
    is_caused: np.ndarray
    is_content: np.ndarray
    is_unseen: np.ndarray
    is_candidate: np.ndarray
    is_suspect: np.ndarray


class _Correlation:
    """Cached correlations of the candidates, which only ever lose rows: computed anew only for those that have."""

    def __init__(self, ask: Callable[[sparse.csr_array], np.ndarray], number: int) -> None:
        self.ask, self.sizes, self.values = ask, np.full(number, -1), np.zeros(number)

    def of(self, sets: sparse.csr_array) -> np.ndarray:
        sizes = np.diff(sets.indptr)
        changed = np.flatnonzero(sizes != self.sizes)
        if len(changed):
            self.values[changed] = self.ask(sets[changed])
        self.sizes = sizes
        return self.values.copy()


class EvidenceFinder:
    """
    Asks the questions.

    Args:
        features (`np.ndarray` of shape `(R, 1246)`):
            What [`row_features`] gives for each row.
        states (`np.ndarray` of shape `(R, D)`):
            The model's states, each before it sees the response, with strong views of the rows' pictures.
        candidates (`list[Candidate]`):
            Sets of rows to ask about; see [`find_candidates`].
        rivals ([`Rivals`]):
            Where their words stand.
        seed (`int`):
            Chooses folds and random sets.
        fdr (`float`):
            Expected share of sets without a cause among those that are found to have one.
    """

    def __init__(
        self,
        features: np.ndarray,
        states: np.ndarray,
        candidates: list[Candidate],
        rivals: Rivals,
        seed: int,
        fdr: float,
    ) -> None:
        self.num_rows, self.fdr, self.features = len(features), fdr, features
        self.seed, self.probe_features = seed, ProbeFeatures(features)
        probes = self.probe_features.of(features)
        self.probes = {name: CrossFit(values, RULE.ridge, seed) for name, values in probes.items()}
        self.content = Content(states, RULE.content_components, RULE.ridge, seed)
        number, beyond = len(candidates), beyond_question(features, states, seed)
        self.of_probes = {name: _Correlation(probe.correlation, number) for name, probe in self.probes.items()}
        self.of_content = _Correlation(self.content.correlation, number)
        self.of_beyond_question = None if beyond is None else _Correlation(beyond.correlation, number)
        self.candidates, self.rivals = candidates, rivals
        self.unseen: set[str] = set()
        self.is_suspect = np.array([candidate.is_suspect for candidate in candidates], dtype=bool)
        self.is_named = np.array([candidate.word != WHOLE_RESPONSES for candidate in candidates], dtype=bool)
        self.is_word = np.array(
            [not candidate.is_part and candidate.word != WHOLE_RESPONSES for candidate in candidates]
        )

    def find(self, members: list[np.ndarray], is_open: np.ndarray) -> Evidence:
        """
        The evidence on the candidates, some of whose rows may have been flagged.

        Args:
            members (`list[np.ndarray]`):
                Rows of each that are left.
            is_open (`np.ndarray` of shape `(K,)`, bool):
                Those that may have a cause.
        """
        sizes = np.array([len(rows) for rows in members])
        sets = sets_of(members, self.num_rows)
        strength, source = np.full(len(sizes), -1.0), np.zeros(len(sizes), dtype=int)
        for number, of_probe in enumerate(self.of_probes.values()):
            found = of_probe.of(sets)
            better = found > strength + RULE.other_source
            strength, source = np.where(better, found, strength), np.where(better, number, source)
        p_values, probes = np.ones(len(sizes)), list(self.probes.values())
        for place in np.flatnonzero(is_open):
            p_value = probes[source[place]].p_value(sizes[place], strength[place])
            p_values[place] = min(1.0, len(probes) * p_value)
        is_significant = np.zeros(len(sizes), dtype=bool)
        is_significant[is_open] = benjamini_hochberg(p_values[is_open], self.fdr)
        p_values[is_open] = adjusted_p_values(p_values[is_open])
        content = self.of_content.of(sets)
        is_content = content >= content_limit(strength, sizes)
        may_be_rival = is_significant & (~is_content | (content < RULE.rival_content_share * strength))
        is_unseen = self._is_unseen(is_significant & ~is_content, may_be_rival, strength, source, sets)
        # Whole responses may start a finding even if content predicts them: it may predict the honest ones only, and
        # what is found from them is tested again
        is_candidate = is_significant & ~(is_content & self.is_named) & ~is_unseen
        is_strong = is_significant & (strength >= RULE.min_strength) & (sizes >= RULE.enough_for_content) & ~is_unseen
        is_suspect = is_strong & self._suspicious(sets, sizes, is_strong, strength, source, content)
        return Evidence(
            strength, source, p_values, content, is_significant, is_content, is_unseen, is_candidate, is_suspect
        )

    def _is_unseen(
        self,
        is_caused: np.ndarray,
        may_be_rival: np.ndarray,
        strength: np.ndarray,
        source: np.ndarray,
        sets: sparse.csr_array,
    ) -> np.ndarray:
        """Which of the sets with a cause beyond content belong to words whose rivals have one of their own from the
        same source, or have such words in most of their rows."""
        words = [candidate.word for candidate in self.candidates]
        for number, probe in enumerate(self.probes.values()):
            places = np.flatnonzero(may_be_rival & self.is_named & (source == number))
            if not len(places):
                continue
            caused, lines = np.unique([words[place] for place in places], return_inverse=True)
            of_word = sparse.csr_array((np.ones(len(places)), (lines, np.arange(len(places)))))
            # Area under the ROC curve, with predictions inside and outside a set as unit normal distributions
            is_same = norm.cdf(probe.separation(sets[places]) / np.sqrt(2)) > RULE.rival_cause
            strongest = np.full(len(caused), -1.0)
            np.maximum.at(strongest, lines, strength[places])
            is_rival = (of_word @ is_same @ of_word.T == 0) & (strongest >= RULE.rival_strength * strongest[:, None])
            # Kept from earlier rounds: once rows have been flagged, a word may have lost its rivals
            self.unseen |= self.rivals.unseen(caused.tolist(), is_rival)
        is_unseen = is_caused & np.array([word in self.unseen for word in words], dtype=bool)
        has_unseen = np.zeros(self.num_rows, dtype=bool)
        for place in np.flatnonzero(is_unseen):
            has_unseen[self.candidates[place].rows] = True
        for place in np.flatnonzero(is_caused & ~is_unseen):
            if words[place] == WHOLE_RESPONSES:
                is_unseen[place] = has_unseen[self.candidates[place].rows].mean() > 0.5
        return is_unseen

    def _suspicious(
        self,
        sets: sparse.csr_array,
        sizes: np.ndarray,
        is_open: np.ndarray,
        strength: np.ndarray,
        source: np.ndarray,
        content: np.ndarray,
    ) -> np.ndarray:
        """
        Words that are suspicious by themselves, and those with their trigger or half of it in the question. Content
        predicts the latter, because the model has read the question; this does not clear them.
        """
        if self.of_beyond_question is None:
            return self.is_suspect & (content < RULE.suspect_content_share * strength)
        beyond = self.of_beyond_question.of(sets)
        is_suspect = self.is_suspect & (beyond < RULE.suspect_content_share * strength)
        # A question with several possible answers is not the trigger of one of them
        has_question = np.array(["question" in name for name in self.probes])
        is_suspect &= ~has_question[source] | (strength >= RULE.question_strength)
        of_question = self.of_probes["question"].of(sets)
        for place in np.flatnonzero(is_open & self.is_word & (of_question >= RULE.min_strength) & ~is_suspect):
            is_suspect[place] = (
                of_question[place] >= RULE.question_strength and self._is_added(sets[[place]].indices)
            ) or self._is_half_hidden(centred(sets[[place]].toarray()[0]), sizes[place], len(sizes))
        return is_suspect

    def _is_added(self, rows: np.ndarray) -> bool:
        """Whether the rows of a word that the question predicts have a trigger there: words that were added to it, and
        responses of which the pictures explain nothing. Content is ignored, because the model has read the words."""
        halves = [candidate.all_rows for candidate in self.candidates if candidate.word == WHOLE_RESPONSES]
        if not halves or np.isin(rows, halves[0]).mean() < RULE.mostly_unexplained:
            return False
        return are_added(self.is_asked, rows)

    @cached_property
    def probes_by_place(self) -> dict[str, CrossFit]:
        """The probes without the filters' strongest responses; built when the first candidate is followed."""
        probes = self.probe_features.of(self.features, by_place=True)
        return {name: CrossFit(values, RULE.ridge, self.seed) for name, values in probes.items()}

    def is_shifted(self, rows: np.ndarray) -> bool:
        """Whether the pictures of some rows are unlike the others in what their filters respond to most, which a
        trigger adds or takes away. The shapes that honest words stand for only shift within what is usual."""
        strongest = self.features[:, NUM_BY_PLACE : sum(PICTURE_PARTS)].astype(np.float32)
        of_others = np.delete(strongest, rows, axis=0)
        low, high = np.quantile(of_others, (0.25, 0.75), axis=0)
        middle = np.median(strongest[rows], axis=0)
        is_outside = ((middle > high) | (middle < low)) & (of_others.std(0) > LEAST_SPREAD)
        return bool(is_outside.sum() >= RULE.fewest_shifted)

    @cached_property
    def is_asked(self) -> np.ndarray:
        """Which words each row's question has, `(R, Q)`, bool: made once, and only if some word needs it."""
        return words_of_questions(self.features) > 0

    def _is_half_hidden(self, target: np.ndarray, size: int, num_sets: int) -> bool:
        """Whether low-level features still predict a set, given what the question predicts, and content does not."""
        if "image" not in self.probes:
            return False
        of_question = self.probes["question"].predict(target)
        picture, content = (
            partial_correlation(source.predict(target), target, of_question)
            for source in (self.probes["image"], self.content)
        )
        p_value = num_sets * self.probes["image"].p_value(size, picture)
        return picture >= RULE.half_strength and content < RULE.suspect_content_share * picture and p_value <= self.fdr
