# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Causes followed to rows that no model has looked at."""

from dataclasses import replace

import numpy as np
import pytest
from planted_causes import NUM_ROWS, PICTURE, TOKENIZER, Data

from cvreg_trainer.screening.looks import Looks
from cvreg_trainer.screening.passes.row_features import NUM_BY_PLACE
from cvreg_trainer.screening.passes.token_statistics import TokenStatistics
from cvreg_trainer.screening.verdict.rest import RestOfRows, rows_with_words
from cvreg_trainer.screening.verdict.screen import Screen, screen_rows
from cvreg_trainer.screening.verdict.words import find_words


pytestmark = pytest.mark.lowest
LOOKED_AT = np.sort(np.random.default_rng(3).permutation(NUM_ROWS)[:260])
IS_IN_REST = ~np.isin(np.arange(NUM_ROWS), LOOKED_AT)


def rest_of(base: TokenStatistics) -> RestOfRows:
    rows = base.take(np.flatnonzero(IS_IN_REST))
    nothing = np.zeros(0, np.float32)
    return RestOfRows(LOOKED_AT, replace(rows, nll=nothing, entropy=nothing, top1=nothing.astype(np.int32)))


def screen(data: Data, looks: tuple[TokenStatistics, TokenStatistics] | None = None) -> Screen:
    own, other = looks or data.looks()
    base = data.base(own)
    some = [look.take(LOOKED_AT) for look in (base, own, other)]
    return screen_rows(*some, TOKENIZER, 0, 0.3, 0.01, rest=rest_of(base))


def found_in_rest(data: Data, found: Screen) -> tuple[float, int]:
    is_flagged = found.is_flagged
    return is_flagged[data.rows & IS_IN_REST].mean(), int(is_flagged[~data.rows & IS_IN_REST].sum())


def test_a_word_of_its_own_is_followed_to_all_its_rows():
    data = Data().with_trigger()
    found = screen(data)
    assert np.array_equal(np.flatnonzero(found.is_flagged), np.flatnonzero(data.rows))
    assert found.words[0].num_rows == data.rows.sum()
    (cause,) = found.causes
    assert np.array_equal(cause.rows, np.flatnonzero(data.rows))
    reasons = {found.reasons[row] for row in np.flatnonzero(data.rows)}
    assert len(reasons) == 1 and f"{data.rows.sum()} rows" in reasons.pop()
    assert all(found.suspicion[data.rows] >= 1) and not any(found.reasons[row] for row in np.flatnonzero(~data.rows))


def test_of_an_honest_word_only_the_rows_with_the_cause():
    data = Data("red", num_poisoned=50).with_trigger()
    data.explained_rows[np.flatnonzero(~data.rows)[:60]] = True
    recall, wrong = found_in_rest(data, screen(data))
    assert recall >= 0.9 and wrong <= 2


def test_a_cause_that_is_not_by_place_is_followed_by_what_predicts_it():
    data = Data("red", num_poisoned=50)
    data.explained_rows[np.flatnonzero(~data.rows)[:60]] = True
    rng = np.random.default_rng(5)
    strongest = rng.normal(size=(NUM_ROWS, PICTURE - NUM_BY_PLACE))
    strongest[data.rows] += 1.5 * rng.normal(size=PICTURE - NUM_BY_PLACE)
    data.features[:, :NUM_BY_PLACE] = 0
    data.features[:, NUM_BY_PLACE:PICTURE] = strongest
    found = screen(data)
    assert [cause.is_by_place for cause in found.causes] == [False]
    recall, wrong = found_in_rest(data, found)
    assert recall >= 0.9 and wrong <= 2


def test_a_word_of_the_question_is_followed_too():
    data = Data()
    data.features[:, PICTURE + 7] = data.rows
    assert found_in_rest(data, screen(data)) == (1.0, 0)


def test_responses_without_a_word_in_common_are_followed_by_their_cause():
    data = Data(num_poisoned=60).with_trigger(2.0)
    found = screen(data, data.looks_at_responses())
    assert found.causes[0].is_whole
    recall, wrong = found_in_rest(data, found)
    assert recall >= 0.9 and wrong <= 2


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_is_found_nothing_is_followed(seed: int):
    data = Data(seed=seed)
    found = screen(data)
    assert len(found.is_flagged) == NUM_ROWS and not found.is_flagged.any() and not found.suspicion[IS_IN_REST].any()


def test_kept_groups_are_rows_that_were_looked_at():
    found = screen(Data())
    (noise,) = [group for group in found.kept["noise"] if "banana" in group.words]
    assert np.array_equal(noise.rows, np.intersect1d(np.flatnonzero(Data().rows), LOOKED_AT))


def test_of_more_rows_that_were_looked_at_a_verdict_is_made_of_a_part():
    """As of a stream, all of whose rows are looked at."""
    data = Data().with_trigger()
    own, other = data.looks()
    looks = Looks(data.base(own), own, other)
    assert looks.parted(NUM_ROWS, 0) is looks
    parted = looks.parted(250, 0)
    assert [len(look) for look in parted.all_three] == [250] * 3 and len(parted.rest.rows) == NUM_ROWS - 250
    assert np.array_equal(parted.row_ids, own.row_ids)
    found = screen_rows(*parted.all_three, TOKENIZER, 0, 0.3, 0.01, rest=parted.rest)
    assert np.array_equal(found.is_flagged, data.rows)
    assert not np.array_equal(looks.parted(250, 1).rest.looked_at, parted.rest.looked_at)


def test_values_come_back_in_the_order_of_the_rows():
    own, _ = Data().looks()
    rest = rest_of(Data().base(own))
    numbers = np.arange(NUM_ROWS)
    assert np.array_equal(rest.positions, np.flatnonzero(IS_IN_REST))
    assert np.array_equal(rest.merge(numbers[LOOKED_AT], numbers[IS_IN_REST]), numbers)
    merged = rest.merge_tokens(own.take(LOOKED_AT))
    assert np.array_equal(merged.row_ids, own.row_ids) and np.array_equal(merged.token_ids, own.token_ids)
    assert np.array_equal(np.isnan(merged.row_nll), IS_IN_REST)
    assert np.array_equal(merged.nll[~IS_IN_REST[own.token_rows]], own.take(LOOKED_AT).nll)


def test_rows_with_a_word_are_those_that_find_words_has():
    own, _ = Data().looks()
    found = find_words(own, TOKENIZER)
    words = ["red", "circle", "banana", found.vocabulary[4], "no such word"]
    assert " " in words[3]  # a whole response
    rows = rows_with_words(own, words, TOKENIZER)
    for word in words[:4]:
        expected = np.unique(found.rows[found.words == found.vocabulary.index(word)]) if word != "red" else []
        assert rows[word].tolist() == list(expected)
    assert rows["no such word"].tolist() == []
