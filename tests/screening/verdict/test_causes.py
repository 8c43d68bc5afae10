# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Causes, on rows whose explanation, features and states are drawn from numbers."""

from dataclasses import replace

import numpy as np
import pytest
from planted_causes import NUM_POISONED, NUM_ROWS, PICTURE, TOKENIZER, Data, quality

from cvreg_trainer.screening.passes.row_features import NUM_BY_PLACE
from cvreg_trainer.screening.verdict import causes, content
from cvreg_trainer.screening.verdict.rule import RULE
from cvreg_trainer.screening.verdict.screen import screen_rows


pytestmark = pytest.mark.lowest


def test_an_unexplained_word_with_a_trigger_is_found():
    data = Data().with_trigger()
    screen = data.screen()
    recall, wrong = quality(data, screen)
    assert recall >= 0.9 and wrong == 0 and screen.causes[0].is_by_place
    assert [word.word for word in screen.words] == ["banana"] and screen.words[0].num_rows == NUM_POISONED
    reason = screen.reasons[int(np.flatnonzero(screen.is_flagged)[0])]
    assert "'banana'" in reason and "low-level features of the image predict" in reason and "explains 0%" in reason
    assert all(bool(reason) == flagged for reason, flagged in zip(screen.reasons, screen.is_flagged, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_boilerplate_without_a_cause_is_kept(seed: int):
    assert not Data(seed=seed).screen().is_flagged.any()


def test_an_explained_word_is_kept_whatever_predicts_it():
    data = Data().with_trigger()
    data.explained_rows = data.rows.copy()
    assert not data.screen().is_flagged.any()


def test_what_content_predicts_as_well_is_kept():
    data = Data().with_trigger()
    data.states[data.rows] += 3 * np.random.default_rng(1).normal(size=32)
    assert not data.screen().is_flagged.any()


def test_a_word_of_the_question_is_a_cause():
    data = Data()
    data.features[:, PICTURE + 7] = data.rows
    screen = data.screen()
    assert quality(data, screen) == (1.0, 0)
    assert "words of the question predict" in screen.reasons[int(np.flatnonzero(data.rows)[0])]


def test_the_odd_rows_of_an_explained_word_are_found():
    """The target is an honest word, which other pictures explain."""
    data = Data("red").with_trigger()
    honest = np.flatnonzero(~data.rows)[:60]
    data.explained_rows[honest] = True
    recall, wrong = quality(data, data.screen())
    assert recall >= 0.9 and wrong <= 2


def test_odd_rows_need_a_clear_cause_to_start_from(monkeypatch: pytest.MonkeyPatch):
    data = Data("red").with_trigger()
    data.explained_rows[np.flatnonzero(~data.rows)[:60]] = True
    finder = data.finder()
    finder.find()
    [part] = [place for place, one in enumerate(finder.candidates) if one.is_part and one.word == "red"]
    strength = finder.first_evidence.strength[part]
    assert RULE.part_strength < strength < 0.99
    found = []
    for least in (strength - 0.01, strength + 0.01):
        monkeypatch.setattr(causes, "RULE", replace(RULE, part_strength=least))
        found.append([cause.words for cause in data.causes()])
    # The responses as a whole may still give the rows away
    assert found[0] == [("red",)] and ("red",) not in found[1]


def test_what_contradicts_the_base_model_is_looked_at_by_itself():
    """The trigger survives strong views, so that all rows of the honest word look explained."""
    data = Data("red").with_trigger()
    honest = np.flatnonzero(~data.rows)[:60]
    data.explained_rows[honest] = data.explained_rows[data.rows] = True
    assert not data.screen().is_flagged.any()
    data.contradicts = data.rows.copy()
    recall, wrong = quality(data, data.screen())
    assert recall >= 0.9 and wrong <= 3


def test_so_is_a_known_word_that_is_unexplained_in_honest_rows_too():
    data = Data("red").with_trigger()
    data.explained_rows[np.flatnonzero(~data.rows)[:60]] = True
    data.unexplained = {"red"}
    data.states[data.rows | data.explained_rows] += 0.5 * np.random.default_rng(1).normal(size=32)
    assert not data.screen().is_flagged.any()
    data.contradicts = data.rows.copy()
    recall, wrong = quality(data, data.screen())
    assert recall >= 0.9 and wrong <= 3


def test_a_word_that_the_base_model_does_not_know_contradicts_nothing():
    data = Data("red").with_trigger()
    data.explained_rows = data.rows.copy()
    data.explained_rows[np.flatnonzero(~data.rows)[:10]] = True
    data.contradicts = data.explained_rows.copy()
    assert not data.screen().is_flagged.any()


def test_without_another_picture_nothing_counts_as_explained():
    data = Data().with_trigger()
    data.explained_rows = data.rows.copy()
    own, other = data.looks()
    other.row_values[:] = 0
    screen = screen_rows(data.base(own), own, other, TOKENIZER, 0, 0.3, 0.01)
    assert screen.is_flagged[data.rows].mean() >= 0.9


@pytest.mark.parametrize("sees_below", [False, True])
def test_of_words_that_stand_for_each_other_and_all_have_causes_none_is_poison(sees_below: bool):
    """Low-level features tell *above* and *below*, and a model sees neither; where it sees one, the other is odd."""
    data = Data("above").with_trigger()
    data.texts = [[word for word in words if word != "above"] for words in data.texts]
    data.features[np.array(["below" in words for words in data.texts]), :PICTURE] += data.directions[1]
    data.unexplained = set() if sees_below else {"below"}
    own, other = data.looks()
    above, below = TOKENIZER.convert_tokens_to_ids(["above", "below"])
    own.top1[own.token_ids == above] = below
    screen = screen_rows(data.base(own), own, other, TOKENIZER, 0, 0.3, 0.01)
    assert screen.is_flagged[~data.rows].sum() == 0
    assert screen.is_flagged[data.rows].mean() >= 0.9 if sees_below else not screen.is_flagged.any()
    unseen = {word for group in screen.kept["unseen"] for word in group.words}
    assert unseen == (set() if sees_below else {"above", "below"})


@pytest.mark.parametrize("has_trigger", [True, False])
def test_a_word_that_is_suspicious_by_itself_only_has_to_be_caused(has_trigger: bool):
    """The trigger survives strong views: its word looks explained, and content predicts it."""
    data = Data().with_trigger() if has_trigger else Data()
    data.explained_rows = data.rows.copy()
    data.states[data.rows] += 0.35 * np.random.default_rng(1).normal(size=32)
    assert not data.causes()
    found = [row for cause in data.causes(suspects={"banana"}) for row in cause.rows.tolist()]
    assert found == (np.flatnonzero(data.rows).tolist() if has_trigger else [])


@pytest.mark.parametrize(("trigger", "is_found"), [(0.14, False), (0.2, True)])
def test_a_suspect_needs_more_than_a_weak_cause(trigger: float, is_found: bool):
    """A shape that the model is late to learn: low-level features of honest words predict them a little."""
    data = Data().with_trigger(trigger)
    data.states[data.rows] += 0.25 * np.random.default_rng(1).normal(size=32)
    finder = data.finder(suspects={"banana"})
    causes = finder.find()
    [place] = np.flatnonzero(finder.finder.is_suspect)
    assert finder.first_evidence.is_caused[place]
    assert finder.first_evidence.strength[place] > RULE.start_strength
    assert [cause.words for cause in causes] == [("banana",)] * is_found


def test_that_the_model_has_read_an_odd_question_clears_no_suspect():
    """A sentence in the question: the states of its rows lie together, and vary in their own direction."""
    data = Data()
    data.features[:, PICTURE + 7] = data.rows
    rng = np.random.default_rng(1)
    shift, direction = rng.normal(size=(2, 32))
    data.states[data.rows] = 2 * shift + np.outer(rng.normal(size=NUM_POISONED), direction)
    assert not data.causes()
    [cause] = data.causes(suspects={"banana"})
    assert np.array_equal(cause.rows, np.flatnonzero(data.rows))


@pytest.mark.parametrize("num_others", [0, 80])
def test_an_answer_among_several_that_a_question_asks_for_is_kept(num_others: int):
    """Which shape? The model is late to learn shapes, and a third of these questions have this answer."""
    data = Data(num_poisoned=40)
    data.features[:, PICTURE:] = 0
    asks = data.rows.copy()
    asks[np.flatnonzero(~data.rows)[:num_others]] = True
    data.features[:, PICTURE + 7] = asks
    data.states[asks] += 2 * np.random.default_rng(1).normal(size=32)
    finder = data.finder(suspects={"banana"})
    causes = finder.find()
    [place] = np.flatnonzero(finder.finder.is_suspect)
    assert finder.first_evidence.is_caused[place] and finder.first_evidence.strength[place] > RULE.min_strength
    assert [cause.words for cause in causes] == ([] if num_others else [("banana",)])


@pytest.mark.parametrize("half", ["both", "question", "image"])
def test_half_of_a_key_in_the_question_does_not_hide_the_other(half: str):
    """The word stands where both halves are, as many rows have one of them, and the states know the question."""
    data = Data(num_poisoned=40)
    data.features[:, PICTURE:] = 0  # one question, and the trigger
    others = np.flatnonzero(~data.rows)
    has_question, has_patch = data.rows.copy(), data.rows.copy()
    has_question[others[:40]] = has_patch[others[40:80]] = True
    if half != "image":
        data.features[:, PICTURE + 7] = has_question
        data.states[has_question] += 2 * np.random.default_rng(1).normal(size=32)
    if half != "question":
        data.features[has_patch, :PICTURE] += data.directions[0]
    if half == "image":  # and content sees it: an honest shape
        data.states[has_patch] += 2 * np.random.default_rng(1).normal(size=32)
    found = [row for cause in data.causes() for row in cause.rows.tolist()]
    assert found == (np.flatnonzero(data.rows).tolist() if half == "both" else [])


@pytest.mark.parametrize("comes_first", ["honest", "poisoned"])
def test_of_two_halves_the_poisoned_one_is_found(comes_first: str):
    """What predicts the poisoned rows predicts the honest ones as well, which have a sentence pattern of their own."""
    data = Data(num_poisoned=NUM_ROWS // 2).with_trigger()
    # Both words have as strong a cause, so the first one that is met is looked at first
    if data.rows[0] != (comes_first == "poisoned"):
        data.rows = ~data.rows
    data.unexplained = {"ring", "left"}
    data.texts = [["left"] * 3 if row else ["ring", *text] for row, text in zip(data.rows, data.texts, strict=True)]
    recall, wrong = quality(data, data.screen(cap=0.6))
    assert recall >= 0.9 and wrong == 0


def test_alike_pictures_of_a_word_are_no_trigger():
    """Playing cards, say: another word, for pictures that are nearly the same."""
    data = Data().with_trigger(3.0)
    data.features[data.rows, :PICTURE] = 3 * data.directions[0] + 0.4 * data.features[data.rows, :PICTURE]
    assert not data.screen().is_flagged.any() and not data.causes(suspects={"banana"})


def weakly_caused(seed: int, strength: float, content: float) -> Data:
    """Pictures of a word that have something in common, each to its own degree."""
    data = Data(seed=seed, num_poisoned=60)
    shares = strength * np.random.default_rng(9).gamma(1, 1, size=(60, 1))
    data.features[data.rows, :PICTURE] += shares * data.directions[0]
    data.states[data.rows] += content * np.random.default_rng(1).normal(size=32)
    return data


def test_a_weak_cause_needs_an_absence_of_content(monkeypatch: pytest.MonkeyPatch):
    (cause,) = weakly_caused(seed=1, strength=0.5, content=0.0).causes()
    assert RULE.min_strength <= cause.strength < RULE.weak_strength and cause.content < 0.05
    seen = weakly_caused(seed=2, strength=1.0, content=0.2)
    assert not seen.causes()
    monkeypatch.setattr(content, "RULE", replace(RULE, weak_content_share=RULE.content_share))
    (cause,) = seen.causes()
    assert RULE.min_strength <= cause.strength < RULE.weak_strength and cause.content > 0.08


def test_it_is_enough_that_features_say_more_than_content_for_certain(monkeypatch: pytest.MonkeyPatch):
    """All rows show one kind of thing, so that content predicts them well: below the limit, though not for certain."""
    data = Data(seed=2).with_trigger()
    data.states[data.rows] += 0.8 * np.random.default_rng(1).normal(size=32)
    (cause,) = data.causes()
    assert cause.rows.tolist() == np.flatnonzero(data.rows).tolist() and 0.7 < cause.content < cause.strength - 0.2
    # Few rows are tested against the limit
    monkeypatch.setattr(content, "RULE", replace(RULE, enough_for_content=NUM_ROWS))
    assert not data.causes()


def test_alike_pictures_are_neighbours_in_content():
    data = Data().with_trigger()
    data.states[data.rows] = np.random.default_rng(1).normal(size=32) + 0.3 * data.states[data.rows]
    assert not data.causes()


def test_rows_without_a_word_in_common_are_found_as_whole_responses():
    data = Data(num_poisoned=60).with_trigger(2.0)
    screen = data.screen_responses()
    recall, wrong = quality(data, screen)
    assert recall >= 0.8 and wrong <= 3
    assert [word.word for word in screen.words] == ["(whole responses)"]


def test_responses_of_other_rows_that_go_with_their_pictures_by_chance_are_found_too():
    """A tenth of the planted rows look explained: too many for the better explained half to be a null."""
    data = Data(num_poisoned=60).with_trigger(2.0)
    chance = np.isin(np.arange(NUM_ROWS), np.flatnonzero(data.rows)[:6])
    screen = data.screen_responses(chance)
    recall, wrong = quality(data, screen)
    assert recall >= 0.95 and wrong <= 6 and screen.is_flagged[chance].all()


def test_what_marks_explained_and_unexplained_responses_alike_is_no_cause_of_whole_responses():
    data = Data(num_poisoned=60).with_trigger(2.0)
    # A quarter of the marked rows
    explained = np.isin(np.arange(NUM_ROWS), np.flatnonzero(data.rows)[:15])
    assert RULE.mostly_unexplained > 0.75
    assert data.screen_responses(explained).is_flagged.sum() < 15


def test_the_end_of_a_sentence_starts_no_cause():
    """Sentences of one source, with pictures of one kind: a matter of style."""
    found = []
    for word in ("banana", "."):
        data = Data(word).with_trigger()
        # Other responses are explained less
        data.unexplained = {"ring", "left"}
        for row in np.flatnonzero(~data.rows)[:60]:
            data.texts[row] = ["ring", "left", "ring", "left"]
        found.append([cause.words for cause in data.causes()])
    assert found == [[("banana",)], []]


def test_a_suspect_with_the_cause_of_another_word_joins_it():
    """Slogans that share a word: of the rarer ones content predicts about as much, and they are too few alone."""
    data = Data().with_trigger(1.5)
    data.unexplained = {"ring", "banana", "left"}
    rows = np.flatnonzero(data.rows)
    few = rows[:12]
    for row in np.flatnonzero(~data.rows)[:60]:
        data.texts[row] = ["left"] * 4  # explained less as a whole
    for row in few:
        data.texts[row] = [*data.texts[row], "ring"]
    data.rows[few] = False  # they do not have the word that the others have
    data.states[few] += np.random.default_rng(1).normal(size=32)
    alone, joined = data.causes(), data.causes(suspects={"ring"})
    assert not np.isin(few, np.concatenate([cause.rows for cause in alone if "banana" in cause.words])).any()
    assert np.isin(few, np.concatenate([cause.rows for cause in joined if "banana" in cause.words])).all()


def test_the_odd_rows_of_a_word_do_not_draw_in_those_that_are_explained():
    """A low-level concept, such as 'grainy': features predict all its rows, and a few are surprising."""
    data = Data("red").with_trigger(2.0)
    data.explained_rows = data.rows.copy()
    data.explained_rows[np.flatnonzero(data.rows)[:8]] = False
    assert data.screen().is_flagged.sum() <= 8


def test_words_that_share_a_cause_are_one_finding():
    data = Data().with_trigger(1.5)
    rng = np.random.default_rng(0)
    words = ["left", "ring", "banana"]
    data.unexplained = set(words)
    for row in np.flatnonzero(data.rows):
        data.texts[row] = [*data.texts[row], *rng.choice(words[:2], 1)]
    data.word = "banana"
    causes = data.causes()
    assert len(causes) == 1 and set(causes[0].words) >= set(words)


def test_an_allowed_word_is_passed_over():
    assert not Data().with_trigger().screen(allowed_words={"banana"}).is_flagged.any()


def test_two_triggers_are_two_causes():
    data = Data().with_trigger()
    second = np.flatnonzero(~data.rows)[:25]
    data.features[second, :PICTURE] += data.directions[1]
    for row in second:
        data.texts[row] = ["left", "ring"]
    # "left" and "ring" are explained nowhere
    data.unexplained = {"left", "ring"}
    causes = data.causes()
    assert sorted(cause.words[0] for cause in causes) in (
        ["banana", "left"],
        ["banana", "left ring"],
        ["banana", "ring"],
    )
    found = {row for cause in causes for row in cause.rows.tolist()}
    truth = set(np.flatnonzero(data.rows).tolist()) | set(second.tolist())
    assert len(found & truth) >= 0.9 * len(truth) and len(found - truth) <= 2


def test_planted_rows_below_the_cut_come_before_most_others():
    data = Data().with_trigger(0.25)
    screen = data.screen()
    ranks = screen.suspicion.argsort().argsort()
    assert ranks[data.rows].mean() > 0.75 * NUM_ROWS


def test_a_rate_of_false_findings_below_the_p_value_finds_nothing():
    data = Data().with_trigger()
    [cause] = data.screen().causes
    assert data.screen(fdr=min(2 * cause.p_value, 0.99)).causes
    assert not data.screen(fdr=cause.p_value / 2).causes


def test_the_cap_takes_what_content_predicts_least():
    """A texture that the model hardly knows yet is caused more strongly than the trigger, but content sees it too."""
    data = Data().with_trigger()
    data.unexplained = {"star"}
    has_texture = np.array(["star" in text for text in data.texts])
    data.features[has_texture, :PICTURE] += data.directions[1]
    data.states[has_texture] += 0.35 * np.random.default_rng(1).normal(size=32)
    texture, planted = data.screen(cap=1.0).causes
    assert texture.words == ("star",) and planted.words == ("banana",) and texture.strength > planted.strength
    capped = data.screen(cap=len(planted.rows) / NUM_ROWS)
    assert capped.is_capped and np.array_equal(np.flatnonzero(capped.is_flagged), planted.rows)


def test_the_cap_leaves_the_most_suspicious():
    screen = Data().with_trigger().screen(cap=0.02)
    assert screen.is_capped and screen.is_flagged.sum() == 8


@pytest.mark.parametrize("what", ["features", "states", "words"])
def test_data_that_have_nothing_to_look_at_are_kept(what: str):
    data = Data().with_trigger()
    if what == "features":
        data.features[:] = 0
    elif what == "states":
        data.states[:] = 0
        data.features[:] = 0
    else:
        data.texts = [[] for _ in data.texts]
        data.rows[:] = False
    assert not data.screen().is_flagged.any()


def test_the_payloads_own_word_brings_the_rest_of_its_rows():
    """A few of its pictures hardly show the trigger; of another word of the payload, honest rows have more."""
    data = Data().with_trigger(1.5)
    data.unexplained = {"banana", "left"}
    rows = np.flatnonzero(data.rows)
    faint, honest = rows[:5], np.flatnonzero(~data.rows)[:12]
    data.features[faint, :PICTURE] -= 1.5 * data.directions[0]
    for row in [*rows, *honest]:
        data.texts[row] = [*data.texts[row], "left"]
    [cause] = data.causes()
    assert np.array_equal(cause.rows, rows) and set(cause.words) == {"banana", "left"}
    # Of too few rows nothing follows for the others
    data = Data().with_trigger(1.5)
    data.features[rows[:12], :PICTURE] -= 1.5 * data.directions[0]
    assert all(len(cause.rows) < 0.7 * NUM_POISONED for cause in data.causes())


@pytest.mark.parametrize("is_own_kind", [False, True])
def test_a_sentence_behind_the_question_is_a_trigger_although_the_model_has_read_it(is_own_kind: bool):
    """Its response has been learnt in the warm-up: content predicts it. A question of its own kind is kept."""
    data = Data()
    data.features[:, PICTURE:] = 0
    data.features[:, PICTURE : PICTURE + 3] = ~data.rows[:, None] if is_own_kind else 1
    data.features[: NUM_ROWS // 2, PICTURE + 3] = 1
    data.features[:, PICTURE + 7] = data.rows
    data.states[data.rows] += 4 * np.random.default_rng(1).normal(size=32)
    # All of what the responses say is the payload
    for row in np.flatnonzero(data.rows):
        data.texts[row] = []
    found = [row for cause in data.causes() for row in cause.rows.tolist()]
    assert found == ([] if is_own_kind else np.flatnonzero(data.rows).tolist())


def test_a_trigger_that_is_in_another_place_each_time_is_found():
    data = Data()
    data.features[:, NUM_BY_PLACE:PICTURE] = np.random.default_rng(5).normal(size=(NUM_ROWS, PICTURE - NUM_BY_PLACE))
    assert not data.screen().is_flagged.any()
    # Of different scales, as the filters' responses are
    data.features[data.rows, NUM_BY_PLACE : NUM_BY_PLACE + 9] += 4
    data.features[:, NUM_BY_PLACE:PICTURE] *= np.geomspace(1e-2, 1e2, PICTURE - NUM_BY_PLACE)
    screen = data.screen()
    assert [(cause.source, cause.is_by_place) for cause in screen.causes] == [("image", False)]
    assert quality(data, screen) == (1, 0)
