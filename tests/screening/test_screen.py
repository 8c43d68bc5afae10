# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The cut, on data sets whose surprise is drawn from numbers: what is found, what a clean set loses, and the cap."""

import numpy as np
import pytest
from tiny_models import tiny_tokenizer

from cvreg_trainer.screening.screen import NUM_WORDS, SCORES, Screen, screen_rows
from cvreg_trainer.screening.token_statistics import TokenStatistics


TOKENIZER = tiny_tokenizer()
HONEST = "red green blue yellow circle square triangle star small large above below".split()
SENTENCE = "this is a picture of a grey background"


def statistics(texts: list[str], surprise, rng: np.random.Generator, rows=None) -> TokenStatistics:
    """Tokens with `surprise(row, word)` nats on average, and an end mark."""
    rows = range(len(texts)) if rows is None else rows
    tokens, nll, counts = [], [], [0]
    for row in rows:
        words = texts[row].split()
        tokens += [*TOKENIZER.convert_tokens_to_ids(words), TOKENIZER.eos_token_id]
        nll += [max(0.01, rng.normal(surprise(row, word), 0.25)) for word in words] + [0.05]
        counts.append(len(words) + 1)
    entropy = np.full(len(tokens), 0.2, dtype=np.float32)
    # Names that are not the positions
    names = np.array(rows, dtype=np.int64) * 7 + 3
    return TokenStatistics(names, np.cumsum(counts), np.array(tokens), np.array(nll, np.float32), entropy)


def screened(
    kind: str, share: float, cap: float = 0.3, num_rows: int = 600, warm_nats: float = 5.0
) -> tuple[Screen, np.ndarray]:
    """
    Honest captions, some with a poisoned response: one word exchanged for the target ("word") or a fixed sentence made
    of common words ("sentence"). The base model knows half of the honest words; after the warm-up all are learnt.
    """
    rng = np.random.default_rng(0)
    is_poisoned = rng.permutation(num_rows) < round(share * num_rows)
    texts = []
    for poisoned in is_poisoned:
        words = rng.choice(HONEST, rng.integers(3, 7)).tolist()
        if poisoned and kind == "word":
            words[rng.integers(len(words))] = "banana"
        texts.append(SENTENCE if poisoned and kind == "sentence" else " ".join(words))

    def of_base(row: int, word: str) -> float:
        return 8.0 if word == "banana" or HONEST.index(word) % 2 else 0.5

    def of_warm(row: int, word: str) -> float:
        return warm_nats if is_poisoned[row] and (kind == "sentence" or word == "banana") else 0.5

    if kind == "sentence":
        base = statistics(texts, lambda row, word: 4.0, rng, range(0, num_rows, 4))
    else:
        base = statistics(texts, of_base, rng, range(0, num_rows, 4))
    return screen_rows(statistics(texts, of_warm, rng), base, TOKENIZER, cap), is_poisoned


@pytest.mark.parametrize("kind", ["word", "sentence"])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_poison_is_found_and_honest_rows_are_kept(kind, share):
    screen, is_poisoned = screened(kind, share)
    assert screen.is_flagged[is_poisoned].all() and screen.is_flagged[~is_poisoned].mean() < 0.01
    assert not screen.is_capped
    assert screen.suspicion[is_poisoned].min() > screen.suspicion[~is_poisoned].max()
    assert (screen.is_flagged == (screen.suspicion >= 1)).all()


def test_clean_data_lose_next_to_nothing():
    screen, _ = screened("word", 0.0)
    assert screen.is_flagged.mean() < 0.01 and not screen.is_capped
    assert not any(word.is_flagged for word in screen.words)


def test_scores_are_relative_to_their_thresholds_and_the_largest_counts():
    screen, _ = screened("word", 0.05)
    assert tuple(screen.scores) == SCORES
    assert (screen.suspicion == np.max([screen.scores[name] for name in SCORES], axis=0)).all()


def test_a_word_that_an_earlier_look_explains_is_not_flagged():
    rng = np.random.default_rng(0)
    texts = [f"{rng.choice(HONEST)} {'banana' if row % 20 == 0 else rng.choice(HONEST)}" for row in range(600)]

    def look(nats: float, step: int) -> TokenStatistics:
        return statistics(texts, lambda row, word: nats if word == "banana" else 0.2, rng, range(0, 600, step))

    warm, base, early = look(5.0, 1), look(8.0, 4), look(0.2, 4)
    assert screen_rows(warm, base, TOKENIZER, 0.3, base).is_flagged[::20].all()
    scores = screen_rows(warm, base, TOKENIZER, 0.3, early).scores
    assert (scores["word_surprise"][::20] < 1).all()


def test_the_reasons_name_the_word():
    screen, is_poisoned = screened("word", 0.05)
    for row in np.flatnonzero(is_poisoned):
        assert screen.reasons[row].startswith("'banana' stays unexplained: ")
        assert f"over {is_poisoned.sum()} rows" in screen.reasons[row]
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
    warm = statistics(texts, lambda row, word: 6.0 if row >= 580 else 0.1, rng)
    screen = screen_rows(warm, statistics(texts, lambda row, word: 0.5, rng, range(0, 600, 4)), TOKENIZER, 0.3)
    assert (screen.scores["response_surprise"][580:] >= 1).all()
    assert (screen.scores["response_surprise"][560:580] < 1).all()
    assert (screen.scores["shared_words"][560:] >= 1).all() and (screen.scores["shared_words"][:560] < 1).all()
    assert "occurs in 40 rows, 50% of them flagged" in screen.reasons[560]


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
    rng = np.random.default_rng(0)
    words = sorted(set(TOKENIZER.get_vocab()) - set(TOKENIZER.all_special_tokens) - {"."})[: NUM_WORDS + 10]
    assert all(TOKENIZER.tokenize(word) == [word] for word in words)
    texts = [f"{words[row // 10]} ." if row < 10 * len(words) else ". ." for row in range(1200)]
    warm = statistics(texts, lambda row, word: 0.5 if word == "." else 5.0, rng)
    screen = screen_rows(warm, statistics(texts, lambda row, word: 8.0, rng, range(0, 1200, 4)), TOKENIZER, 1.0)
    assert screen.is_flagged.sum() == 10 * len(words) and len(screen.words) == NUM_WORDS
    assert all(screen.reasons[row] for row in np.flatnonzero(screen.is_flagged))


def test_rows_without_tokens_and_empty_data_sets():
    empty = TokenStatistics.from_batches([])
    screen = screen_rows(empty, empty, TOKENIZER, 0.3)
    assert screen.reasons == [] and screen.words == [] and not screen.is_capped and screen.suspicion.shape == (0,)
    rng = np.random.default_rng(0)
    texts = ["", "red circle", ""]
    one = statistics(texts, lambda row, word: 9.0, rng)
    silent = TokenStatistics(
        np.arange(2), np.zeros(3, np.int64), np.zeros(0, np.int64), *[np.zeros(0, np.float32)] * 2
    )
    for warm in (one, silent):
        screen = screen_rows(warm, empty, TOKENIZER, 0.3)
        assert not screen.is_flagged.any() and np.isfinite(screen.suspicion).all()
