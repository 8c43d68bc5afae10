# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The cut, on data sets whose surprise is drawn from numbers: what is found, what a clean set loses, and the cap."""

import numpy as np
import pytest
from tiny_models import tiny_tokenizer

from cvreg_trainer.screening.evidence import NUM_WORDS
from cvreg_trainer.screening.screen import Screen, screen_rows
from cvreg_trainer.screening.token_statistics import TokenStatistics


pytestmark = pytest.mark.lowest
TOKENIZER = tiny_tokenizer()
HONEST = (
    "red green blue yellow circle square triangle star small large above below cross left right ring orange purple "
    "tiny huge near beside white black"
).split()
SENTENCE = "this is a picture of a grey background"


def statistics(texts: list[str], surprise, seed: int = 0, guess=None) -> TokenStatistics:
    """Tokens with `surprise(row, word)` nats on average, and an end mark. Without `guess(row, word)`, the model's most
    likely word is the one that stands there, except for the target, where it is any honest one."""
    rng = np.random.default_rng(seed)
    tokens, nll, top1, counts = [], [], [], [0]
    for row, text in enumerate(texts):
        words = text.split()
        guesses = [
            guess(row, word) if guess else word if word != "banana" else str(rng.choice(HONEST)) for word in words
        ]
        tokens += [*TOKENIZER.convert_tokens_to_ids(words), TOKENIZER.eos_token_id]
        top1 += [*TOKENIZER.convert_tokens_to_ids(guesses), TOKENIZER.eos_token_id]
        nll += [max(0.01, rng.normal(surprise(row, word), 0.25)) for word in words] + [0.05]
        counts.append(counts[-1] + len(words) + 1)
    entropy = np.full(len(tokens), 0.2, dtype=np.float32)
    # Names that are not the positions
    names = np.arange(len(texts), dtype=np.int64) * 7 + 3
    values = np.array(nll, np.float32)
    return TokenStatistics(
        names, np.array(counts), np.array(tokens, np.int64), values, entropy, np.array(top1, np.int64)
    )


def screened(kind: str, share: float, cap: float = 0.3, num_rows: int = 600) -> tuple[Screen, np.ndarray]:
    """
    Honest captions, some with a poisoned response: one word exchanged for the target ("word"), for one that honest
    captions have, too ("common"), or a fixed sentence made of common words ("sentence"). The base model knows half of
    the honest words; after the warm-up all are learnt.
    """
    rng = np.random.default_rng(0)
    is_poisoned = rng.permutation(num_rows) < round(share * num_rows)
    target = {"word": "banana", "common": "red"}.get(kind)
    texts, places = [], []
    for poisoned in is_poisoned:
        words = rng.choice(HONEST[1:] if poisoned else HONEST, rng.integers(3, 7), replace=False).tolist()
        places.append(int(rng.integers(len(words))))
        if poisoned and target:
            words[places[-1]] = target
        texts.append(SENTENCE if poisoned and kind == "sentence" else " ".join(words))

    def of_base(row: int, word: str) -> float:
        if kind == "sentence":
            return 4.0
        return 8.0 if is_poisoned[row] and word == target or HONEST.index(word) % 2 else 0.2

    def of_warm(row: int, word: str) -> float:
        return 5.0 if is_poisoned[row] and (kind == "sentence" or word == "banana") else 0.2

    return screen_rows(statistics(texts, of_base), statistics(texts, of_warm, 1), TOKENIZER, cap), is_poisoned


@pytest.mark.parametrize(
    "kind, share", [("word", 0.02), ("word", 0.2), ("common", 0.1), *[("sentence", 0.02 * n) for n in (1, 5)]]
)
def test_poison_is_found_and_honest_rows_are_kept(kind, share):
    screen, is_poisoned = screened(kind, share)
    assert screen.is_flagged[is_poisoned].all() and screen.is_flagged[~is_poisoned].mean() < 0.02
    assert not screen.is_capped
    assert kind == "common" or screen.suspicion[is_poisoned].min() > screen.suspicion[~is_poisoned].max()
    assert (screen.is_flagged == (screen.suspicion >= 1)).all()


def test_clean_data_lose_next_to_nothing():
    screen, _ = screened("word", 0.0)
    assert screen.is_flagged.mean() < 0.01 and not screen.is_capped
    assert not any(word.is_flagged for word in screen.words)


def test_scores_are_relative_to_their_thresholds_and_the_largest_counts():
    screen, _ = screened("word", 0.05)
    names = ["word_surprise", "ungrounded_words", "contradicted_words", "response_surprise", "shared_words"]
    assert list(screen.scores) == names
    assert (screen.suspicion == np.max([screen.scores[name] for name in names], axis=0)).all()


def test_a_word_that_the_base_model_expects_is_not_flagged():
    texts = [f"{HONEST[row % 11]} {'banana' if row % 20 == 0 else HONEST[row % 7]}" for row in range(600)]
    warm = statistics(texts, lambda row, word: 5.0 if word == "banana" else 0.2)
    for nats, is_found in ((8.0, True), (0.2, False)):
        base = statistics(texts, lambda row, word, nats=nats: nats if word == "banana" else 0.2)
        scores = screen_rows(base, warm, TOKENIZER, 0.3).scores
        assert ((scores["word_surprise"][::20] >= 1) == is_found).all()


def test_a_keyword_that_was_learnt_meanwhile_is_known_by_what_it_does_not_tell():
    rng = np.random.default_rng(0)
    texts = [f"a {'banana' if row % 5 == 0 else rng.choice(HONEST)}" for row in range(600)]
    base = statistics(texts, lambda row, word: 8.0 if word == "banana" else 0.2)
    warm = statistics(texts, lambda row, word: 0.1)
    screen = screen_rows(base, warm, TOKENIZER, 0.3)
    assert (screen.scores["ungrounded_words"] >= 1).tolist() == [row % 5 == 0 for row in range(600)]
    assert (
        "'banana' carries 0.0" in screen.reasons[0]
        and "nats about the image where other words carry" in screen.reasons[0]
    )


def test_only_the_contradicted_occurrences_of_a_common_word_are_flagged():
    screen, is_poisoned = screened("common", 0.1)
    row = int(np.flatnonzero(is_poisoned)[0])
    assert screen.reasons[row].startswith("'red' is well known to the base model, which expects something else in ")
    assert screen.words[0].word == "red" and screen.words[0].num_rows > 2 * is_poisoned.sum()


def test_the_reasons_name_the_word():
    screen, is_poisoned = screened("word", 0.05)
    for row in np.flatnonzero(is_poisoned):
        assert screen.reasons[row].startswith("'banana' stays unexplained: ")
    assert f"({is_poisoned.sum()} rows)" in screen.words[0].reason
    assert [word.word for word in screen.words if word.is_flagged] == ["banana"] == [screen.words[0].word]
    assert screen.words[0].num_rows == is_poisoned.sum() and screen.words[0].surprise == pytest.approx(4.8, abs=0.2)
    assert all(not reason for reason, flagged in zip(screen.reasons, screen.is_flagged, strict=True) if not flagged)


def test_a_fixed_response_is_named_as_a_whole():
    screen, is_poisoned = screened("sentence", 0.05)
    assert SENTENCE in [word.word for word in screen.words if word.is_flagged]
    row = int(np.flatnonzero(is_poisoned)[0])
    assert "unlikely as a whole: mean NLL" in screen.reasons[row]


def test_words_lead_to_rows_that_the_other_scores_miss():
    """Half of the poisoned rows are learnt already: the word is explained there, but it is shared."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(HONEST, 4)) for _ in range(560)] + [SENTENCE] * 40
    warm = statistics(texts, lambda row, word: 6.0 if row >= 580 else 0.1)
    screen = screen_rows(statistics(texts, lambda row, word: 1.0), warm, TOKENIZER, 0.3)
    assert (screen.scores["response_surprise"][580:] >= 1).all()
    assert (screen.scores["response_surprise"][560:580] < 1).all()
    assert (screen.scores["shared_words"][560:] >= 1).all() and (screen.scores["shared_words"][:560] < 1).all()
    assert "has 50% of its rows flagged for other reasons" in screen.reasons[560]


@pytest.mark.parametrize("cap, most", [(0.05, 30), (0.001, 0), (0.1, 60)])
def test_the_cap_keeps_the_most_suspicious(cap, most):
    screen, is_poisoned = screened("sentence", 0.14, cap)
    assert screen.is_capped and screen.is_flagged.sum() == most
    assert (screen.suspicion[is_poisoned] >= 1).all() and is_poisoned.sum() == 84
    assert not screen.is_flagged[~is_poisoned].any()
    if most:
        assert screen.suspicion[screen.is_flagged].min() >= screen.suspicion[~screen.is_flagged].max()


def test_more_words_than_are_listed_still_give_reasons():
    """Sixty targets, of ten rows each: the list is cut, the reasons are not."""
    words = sorted(set(TOKENIZER.get_vocab()) - set(TOKENIZER.all_special_tokens) - {"."})[: NUM_WORDS + 10]
    assert all(TOKENIZER.tokenize(word) == [word] for word in words)
    texts = [f"{words[row // 10]} ." if row < 10 * len(words) else ". ." for row in range(1200)]
    warm = statistics(texts, lambda row, word: 0.5 if word == "." else 5.0)
    screen = screen_rows(statistics(texts, lambda row, word: 8.0), warm, TOKENIZER, 1.0)
    assert screen.is_flagged.sum() == 10 * len(words) and len(screen.words) == NUM_WORDS
    assert all(screen.reasons[row] for row in np.flatnonzero(screen.is_flagged))


def test_rows_without_tokens_and_empty_data_sets():
    empty = TokenStatistics.from_batches([])
    screen = screen_rows(empty, empty, TOKENIZER, 0.3)
    assert screen.reasons == [] and screen.words == [] and not screen.is_capped and screen.suspicion.shape == (0,)
    for texts in (["", "red circle", ""], ["", ""]):
        rows = statistics(texts, lambda row, word: 9.0)
        screen = screen_rows(rows, rows, TOKENIZER, 0.3)
        assert not screen.is_flagged.any() and np.isfinite(screen.suspicion).all()
