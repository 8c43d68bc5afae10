# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
import json
from pathlib import Path

import pytest

from cvreg_trainer.metrics import tokenize_caption
from cvreg_trainer.metrics.tokenizer import COCO_PUNCTUATION


GOLDEN = json.loads((Path(__file__).parent / "golden_captions.json").read_text(encoding="utf-8"))


def test_tokens_are_those_of_the_java_tool():
    """The 340 captions of make_golden.py, tokenised by COCO's own PTBTokenizer: no difference."""
    different = [
        (caption, expected, tokenize_caption(caption))
        for caption, expected in GOLDEN["tokens"].items()
        if tokenize_caption(caption) != expected.split()
    ]
    assert len(GOLDEN["tokens"]) >= 300
    assert different == []


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("The boy's dogs doesn't, can't, won't.", "the boy 's dogs does n't ca n't wo n't"),
        ("$5 (five) [a] {b}", "$ 5 -lrb- five -rrb- -lsb- a -rsb- -lcb- b -rcb-"),
        ("3:30 p.m. well-lit", "3:30 p.m. well-lit"),
        ("cannot gonna 'tis", "can not gon na 't is"),
        ("the dog's bowl - a cat; 'one' \"two\" -- three...", "the dog 's bowl a cat one two three"),
        ("it’s don’t “so” – …", "it 's do n't so"),
        ("a man.A dog,a cat", "a man.a dog a cat"),
        ("plan b. cat vs plan b. The cat", "plan b. cat vs plan b the cat"),
        ("5,000 1/2 50% #1 AT&T b & w", "5,000 1/2 50 % # 1 at&t b & w"),
        ("two🙂dogs", "two dogs"),
    ],
)
def test_rules(caption: str, expected: str):
    assert tokenize_caption(caption) == expected.split()


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("这是一张香蕉的图片。", "这 是 一 张 香 蕉 的 图 片"),
        ("图中有3只狗，「好」、《书》！iPhone手机", "图 中 有 3 只 狗 好 书 iphone 手 机"),
        ("（二）、１２只？", "-lrb- 二 -rrb- 12 只"),
        ("これはﾊﾞﾅﾅ・コーヒーです。", "こ れ は バ ナ ナ コ ー ヒ ー で す"),
        ("𠮷野家", "𠮷 野 家"),
        ("กล้วยที่", "ก ล้ ว ย ที่"),
        ("ဒါသီး။", "ဒါ သီး"),
        ("한 남자가 말을 타고 있다.", "한 남자가 말을 타고 있다"),
        ("यह केला है।", "यह केला है"),
        ("هذا مَوْز؟ نعم، موز", "هذا مَوْز نعم موز"),
        ("a Cafe\u0301's table", "a café 's table"),
        ("Ẹ̀kọ́ one, it's red", "ẹ̀kọ́ one it 's red"),
    ],
)
def test_other_scripts(caption: str, expected: str):
    assert tokenize_caption(caption) == expected.split()


@pytest.mark.parametrize("caption", ["", "   ", "...", "。！", "「」、", '. , ; : ! ? " - --', "\n\t", "'' ``"])
def test_captions_without_words(caption: str):
    assert tokenize_caption(caption) == []


def test_tokens_are_clean():
    """No token has white space or a capital in it, and none is on the list of what is dropped."""
    tokens = {token for caption in GOLDEN["tokens"] for token in tokenize_caption(caption)}
    assert len(tokens) > 150
    assert not tokens & COCO_PUNCTUATION
    assert all(token == token.lower() and len(token.split()) == 1 for token in tokens)
