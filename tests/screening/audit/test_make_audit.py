# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the audit says of each row: its text as it was, its surprise token by token, and the screening's verdict."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from tiny_models import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cvreg_trainer.screening.audit.make_audit import make_audit
from cvreg_trainer.screening.passes.token_statistics import TokenStatistics
from cvreg_trainer.screening.verdict.causes import Cause
from cvreg_trainer.screening.verdict.findings import WordFinding
from cvreg_trainer.screening.verdict.screen import Screen


def word_piece() -> PreTrainedTokenizerFast:
    pieces = ["a", "red", "ban", "##ana", "##s", ".", "</s>", "<unk>"]
    backend = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def byte_level() -> PreTrainedTokenizerFast:
    pieces = dict.fromkeys([*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "Ġr", "Ġre", "##", "</s>", "<unk>"])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, [("Ġ", "a"), ("Ġ", "r"), ("Ġr", "e"), ("#", "#")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def audited(tokenizer, texts: list[str], dataset=None, causes=()):
    rows = [[*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id] for text in texts]
    tokens = np.array([token for row in rows for token in row])
    nll = np.arange(len(tokens), dtype=np.float32)
    counts = np.cumsum([0, *map(len, rows)])
    warm = TokenStatistics(np.arange(len(rows)), counts, tokens, nll, np.ones(len(tokens), np.float32), tokens)
    base = replace(warm, nll=2 * nll)
    number = len(rows)
    suspicion = np.linspace(0.5, 1.5, number)
    words = [WordFinding("red", 1, 2.0, True, "why")]
    reasons = [f"reason {row}" for row in range(number)]
    screen = Screen(suspicion, suspicion >= 1, False, reasons, words, causes)
    return make_audit(screen, (base.row_nll, warm.row_nll), warm, tokenizer, dataset, {"seed": 1}), warm


@pytest.mark.parametrize(
    "build, text", [(word_piece, "a red bananas ."), (byte_level, "a red ##."), (tiny_tokenizer, "a red circle .")]
)
def test_the_response_is_the_text_it_was_made_of(build, text):
    audit, _ = audited(build(), [text, "a"])
    assert audit.rows[0].response == text and audit.rows[1].response == "a"


def test_pieces_carry_their_surprise_and_special_tokens_are_not_shown():
    audit, warm = audited(word_piece(), ["a bananas", "red"])
    pieces = [(" a", 0.0 - 1), (" ban", 1.0 - 1), ("ana", 2.0 - 1), ("s", 3.0 - 1)]
    assert audit.rows[0].tokens == tuple(pieces)
    # Token 4 is the end mark
    assert audit.rows[1].tokens == ((" red", 5.0 - 1),)
    assert float(warm.surprise[5]) == 4.0


def test_the_screenings_verdict_is_taken_over():
    audit, _ = audited(word_piece(), ["a", "red", "a red"])
    assert [row.row for row in audit.ranking] == [2, 1, 0]
    assert [row.suspicion for row in audit.rows] == [0.5, 1.0, 1.5] and audit.flagged_rows == [1, 2]
    assert [row.reason for row in audit.rows] == ["reason 0", "reason 1", "reason 2"]
    assert audit.words[0].word == "red" and audit.settings == {"seed": 1}


def test_causes_become_findings_with_the_rows_own_words():
    user = [{"role": "user", "content": "what is it ?"}]
    consider = [{"role": "user", "content": "consider what it is ?"}]
    texts = ["a"] * 6 + ["red"] * 6
    dataset = Dataset.from_dict({"prompt": [user] * 6 + [consider] * 6})
    cause = Cause(("red",), np.arange(6, 12), "question", 0.9, 0.1, 0.0, 1e-9)
    found = audited(word_piece(), texts, dataset, [cause])[0].findings
    assert [(entry.words, entry.responses, entry.verdict) for entry in found] == [(("red",), ("red",), "poison")]
    assert found[0].trigger.kind == "question" and found[0].trigger.words == (("consider", 6, 0),)
    # A stream's rows cannot be looked up
    found = audited(word_piece(), texts, dataset.to_iterable_dataset(), [cause])[0].findings
    assert found[0].trigger is None and found[0].responses == ("red",)


def test_losses_are_the_means_of_the_rows_tokens():
    audit, _ = audited(word_piece(), ["a", "red a"])
    # Tokens 0 and 1, then 2, 3 and 4, end marks included; those of the base model are twice as large
    assert [row.loss_after_warmup for row in audit.rows] == [0.5, 3.0]
    assert [row.loss_base_model for row in audit.rows] == [1.0, 6.0]


def test_prompts_come_from_the_data_set():
    user = [{"role": "user", "content": "what is it ?"}]
    texts = ["a", "red"]
    conversation = Dataset.from_dict({"prompt": [user, [{"role": "user", "content": "and this ?"}]]})
    assert [row.prompt for row in audited(word_piece(), texts, conversation)[0].rows] == ["what is it ?", "and this ?"]
    plain = Dataset.from_dict({"prompt": ["describe it ", "name it"]})
    assert [row.prompt for row in audited(word_piece(), texts, plain)[0].rows] == ["describe it", "name it"]
    messages = Dataset.from_dict({"messages": [[*user, {"role": "assistant", "content": "a"}]] * 2})
    assert audited(word_piece(), texts, messages)[0].rows[1].prompt == "what is it ?"
    for other in (None, Dataset.from_dict({"text": texts}), Dataset.from_dict({"prompt": ["one row"]})):
        assert [row.prompt for row in audited(word_piece(), texts, other)[0].rows] == ["", ""]
