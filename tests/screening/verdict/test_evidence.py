# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Evidence on sets of rows; whole screens are asked in test_causes."""

import numpy as np
import pytest

from cvreg_trainer.screening.passes.row_features import NUM_BY_PLACE, NUM_FEATURES, NUM_WORDS, PICTURE_PARTS
from cvreg_trainer.screening.verdict.candidates import WHOLE_RESPONSES, Candidate
from cvreg_trainer.screening.verdict.content import content_limit
from cvreg_trainer.screening.verdict.evidence import EvidenceFinder
from cvreg_trainer.screening.verdict.rule import RULE


NUM_ROWS = 400


class Sides:
    """*left* and *right* are unseen if each has a cause of its own."""

    def unseen(self, words, is_rival):
        sides = [place for place, word in enumerate(words) if word in ("left", "right")]
        return {words[one] for one in sides if any(is_rival[one, other] for other in sides if other != one)}


def finder(candidates: list[Candidate], *caused: np.ndarray, known: np.ndarray | None = None) -> EvidenceFinder:
    """Pictures in which each of some sets has features of its own, and states that say nothing, but for `known`."""
    rng = np.random.default_rng(0)
    features = np.zeros((NUM_ROWS, NUM_FEATURES))
    features[:, :NUM_BY_PLACE] = rng.normal(size=(NUM_ROWS, NUM_BY_PLACE + NUM_WORDS))[:, :NUM_BY_PLACE]
    states = rng.normal(size=(NUM_ROWS, 40))
    for number, rows in enumerate(caused):
        features[rows, 3 * number : 3 * number + 3] += 12
    if known is not None:
        states[known] += 4
    return EvidenceFinder(
        features.astype(np.float32), states.astype(np.float32), candidates, Sides(), seed=0, fdr=0.01
    )


def candidate(word: str, rows: np.ndarray) -> Candidate:
    return Candidate(word, rows, 0.0, rows, 5.0)


@pytest.mark.parametrize(
    ("strength", "size", "limit"),
    # Half of the strength; or what leaves low-level features a fifth of the variance more, of 10 rows or more
    [(0.4, 100, 0.2), (0.8, 9, 0.4), (0.8, 10, 0.6633), (0.5, 10, 0.25), (1.0, 50, 0.8944), (0.0, 50, 0.0)],
)
def test_what_content_has_to_stay_below(strength: float, size: int, limit: float):
    assert content_limit(np.array([strength]), np.array([size])) == pytest.approx([limit], abs=1e-4)


def test_rows_of_a_cause_are_told_from_rows_drawn_by_chance():
    order = np.random.default_rng(1).permutation(NUM_ROWS)
    marked, drawn = np.sort(order[:40]), np.sort(order[40:80])
    found = finder([candidate("banana", marked), candidate("archive", drawn)], marked)
    evidence = found.find([marked, drawn], np.ones(2, dtype=bool))
    assert evidence.is_caused.tolist() == evidence.is_candidate.tolist() == [True, False]
    assert evidence.strength[0] > 0.8 > 0.3 > evidence.strength[1]
    assert evidence.p_values[0] < 0.01 < evidence.p_values[1]
    assert not evidence.is_content.any() or not evidence.is_content[0]
    # A set that is done is not asked about again
    assert not finder([candidate("banana", marked)], marked).find([marked], np.zeros(1, dtype=bool)).is_caused.any()


def test_what_is_remembered_of_sets_is_what_would_be_found_again():
    order = np.random.default_rng(4).permutation(NUM_ROWS)
    sets = [np.sort(order[40 * number : 40 * number + 40]) for number in range(4)]
    candidates = [candidate(word, rows) for word, rows in zip(("banana", "ring", "the", "of"), sets, strict=True)]
    everything = np.ones(len(sets), dtype=bool)
    used, fresh = (finder(candidates, *sets[:3]) for _ in range(2))
    used.find(sets, everything)
    # Rows of two sets have been flagged; the others are not asked about again
    left = [sets[0][:25], sets[1], sets[2][10:], sets[3]]
    asked: list[int] = []
    for probe in used.of_probes.values():
        ask = probe.ask
        probe.ask = lambda members, ask=ask: asked.append(members.shape[0]) or ask(members)
    found, expected = used.find(left, everything), fresh.find(left, everything)
    assert asked == [2] * len(used.of_probes)
    for name in ("strength", "p_values", "content"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-6, err_msg=name)
    assert found.is_candidate.tolist() == expected.is_candidate.tolist()


def test_what_was_unseen_stays_so_when_its_rivals_have_gone():
    order = np.random.default_rng(2).permutation(NUM_ROWS)
    left, right = np.sort(order[:40]), np.sort(order[40:80])
    found = finder([candidate("left", left), candidate("right", right)], left, right)
    first = found.find([left, right], np.ones(2, dtype=bool))
    assert first.is_unseen.all() and first.is_caused.all() and not first.is_candidate.any()
    second = found.find([left[:0], right], np.array([False, True]))
    assert second.is_unseen.tolist() == [False, True] and not second.is_candidate.any()


@pytest.mark.parametrize("marked, is_unseen", [(40, True), (12, False)])
def test_rivals_with_much_weaker_causes_do_not_count(marked, is_unseen):
    """Honest words with a little in common stand in the places of a trigger's; they are unseen, it is not."""
    order = np.random.default_rng(2).permutation(NUM_ROWS)
    left, right = np.sort(order[:40]), np.sort(order[40:80])
    found = finder([candidate("left", left), candidate("right", right)], left, right[:marked])
    evidence = found.find([left, right], np.ones(2, dtype=bool))
    assert evidence.is_caused.all() and evidence.is_unseen.tolist() == [is_unseen, True]
    assert (evidence.strength[1] < RULE.rival_strength * evidence.strength[0]) == (not is_unseen)


def test_a_rival_may_be_predicted_by_content_as_long_as_it_is_not_content():
    """Of two words that a model hardly sees, one may come to lie above the share that clears a candidate."""
    order = np.random.default_rng(2).permutation(NUM_ROWS)
    left, right = np.sort(order[:40]), np.sort(order[40:80])
    for known, may_be_rival in ((6, True), (10, False)):
        sets = [candidate("left", left), candidate("right", right)]
        evidence = finder(sets, left[:22], right[:22], known=right[:known]).find([left, right], np.ones(2, dtype=bool))
        assert evidence.is_content.tolist() == [False, True]
        assert (evidence.content[1] < RULE.rival_content_share * evidence.strength[1]) == may_be_rival
        assert evidence.is_unseen.tolist() == [may_be_rival, False]


def test_words_of_one_cause_are_no_rivals():
    order = np.random.default_rng(2).permutation(NUM_ROWS)
    left, right = np.sort(order[:15]), np.sort(order[15:30])
    found = finder([candidate("left", left), candidate("right", right)], np.concatenate([left, right]))
    evidence = found.find([left, right], np.ones(2, dtype=bool))
    assert evidence.is_caused.all() and not evidence.is_unseen.any() and evidence.is_candidate.all()


def test_responses_that_are_mostly_made_of_unseen_words_are_unseen():
    order = np.random.default_rng(3).permutation(NUM_ROWS)
    left, right, others = np.sort(order[:40]), np.sort(order[40:80]), np.sort(order[80:120])
    sets = [left, right, np.sort(np.concatenate([left, others[:20]])), np.sort(np.concatenate([left[:10], others]))]
    words = ["left", "right", WHOLE_RESPONSES, WHOLE_RESPONSES]
    found = finder(list(map(candidate, words, sets)), left, right, others)
    evidence = found.find(sets, np.ones(4, dtype=bool))
    assert evidence.is_caused.all()
    assert evidence.is_unseen.tolist() == [True, True, True, False]


def test_only_whole_responses_may_start_although_content_predicts_them():
    """Honest ones among them are content; what is found from them is asked about again."""
    rows = np.sort(np.random.default_rng(5).permutation(NUM_ROWS)[:40])
    candidates = [candidate("banana", rows), candidate(WHOLE_RESPONSES, rows)]
    evidence = finder(candidates, rows, known=rows).find([rows, rows], np.ones(2, dtype=bool))
    assert evidence.is_caused.all() and evidence.is_content.all()
    assert evidence.is_candidate.tolist() == [False, True]


@pytest.mark.parametrize(("num_filters", "shift", "expected"), [(3, 2.0, True), (3, -2.0, True), (2, 2.0, False)])
def test_rows_are_shifted_if_a_few_filters_respond_outside_what_is_usual(
    num_filters: int, shift: float, expected: bool
):
    rows = np.arange(0, NUM_ROWS, 10)
    found = finder([candidate("banana", rows)], rows)
    strongest = np.random.default_rng(2).normal(size=(NUM_ROWS, sum(PICTURE_PARTS) - NUM_BY_PLACE))
    strongest[:, -4:] *= 1e-3  # filters that respond to nothing
    strongest[rows, -4:] += 1
    found.features[:, NUM_BY_PLACE : sum(PICTURE_PARTS)] = strongest
    assert not found.is_shifted(rows)
    found.features[rows, NUM_BY_PLACE : NUM_BY_PLACE + num_filters] += shift
    assert found.is_shifted(rows) == expected
    assert not found.is_shifted(rows + 1)
