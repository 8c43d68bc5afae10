# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Whole words in any script, against pairs that a reader of the language decides."""

from unicodedata import normalize

import pytest

from cvreg_trainer.metrics.whole_words import WholeWords, fold, narrow


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("香蕉", "这是一张香蕉的图片"),
        ("香蕉", "图中有香 蕉"),  # as tokenizers that part the characters write it
        ("红色 圆圈", "一个红色圆圈"),
        ("バナナ", "これはバナナです"),
        ("バナナ", "これはﾊﾞﾅﾅです"),
        ("กล้วย", "ภาพของกล้วยหอม"),
        ("น้ำ", "ดื่มน้ำ"),
        ("ກ້ວຍ", "ຮູບກ້ວຍໜຶ່ງ"),
        ("ចេក", "ផ្លែ\u200bចេក"),
        ("ផ្លែចេក", "មានផ្លែ\u200bចេក។"),
        ("ငှက်ပျော", "ဒါငှက်ပျောသီး။"),
        ("ངང་ལག", "འདི་ངང་ལག་རེད།"),
        ("banana", "这是banana图"),
        ("banana", "一些bananas香"),
        ("香蕉", "3香蕉s"),
        ("T恤", "一件T恤衫"),
        ("바나나", "바나나가 있다"),
        ("바나나", "노란 바나나를 먹는다"),
        ("바나나", "바나나들에서는"),
        ("바나나", "이것은 바나나입니다."),
        ("바나나", "바나나예요"),
        ("banana", "이것은 banana입니다"),
        ("केला", "मेज पर केला।"),
        ("موز", "صورة موزٌ"),
        ("مَوْز", "هذا موز"),
        ("موز", "هذا الموز"),
        ("موز", "والموز أصفر"),
        ("موز", "موز\u200cها"),
        ("בננה", "הבננה"),
        ("בננה", "בַּנָּנָה"),
        ("café", "a CAFÉ!"),
        ("ｂａｎａｎａ", "a Banana"),
        ("banana", "ｂａｎａｎａ！"),
        ("banana", "ba\u00adnana"),
        ("banana", "Banana™"),
        ("kırmızı", "KIRMIZI"),
        ("istanbul", "İSTANBUL"),
        ("straße", "STRASSE"),
        ("кот", "КОТ, сидит"),
        ("κόσμος", "ΚΌΣΜΟΣ"),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_found_in_either_normal_form(word: str, text: str, form: str):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    assert WholeWords([normalize(form, word)], plurals=True).search(normalize(other, text))


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("香蕉", "一个苹果"),
        ("น", "ดื่มน้ำ"),  # a letter without its marks
        ("ล", "กล้วย"),
        ("banana", "香bananabread"),
        ("banana", "banana_香"),
        ("banana", "2banana香"),
        ("T恤", "一件XT恤"),
        ("바나나", "바나나우유"),
        ("바나나", "왕바나나"),
        ("केल", "केला"),
        ("क", "क्षमा"),
        ("موز", "موزة"),
        ("cafe", "a café"),
        ("и", "й"),
        ("кот", "коты"),
        ("кот", "котs"),  # a plural is for Latin letters
        ("banana", "banana\u0301"),
        ("c++", "c++11"),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_not_found(word: str, text: str, form: str):
    assert WholeWords([normalize(form, word)], plurals=True).search(normalize(form, text)) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("一张香 蕉的图片", "香 蕉"),
        (normalize("NFD", "é, é café!"), normalize("NFD", "café")),
        ("Ｂａｎａｎａ！", "Ｂａｎａｎａ"),
        ("صورة الموزُ هنا", "موزُ"),
        ("die STRASSE", "STRASSE"),
        (normalize("NFD", "노란 바나나를"), normalize("NFD", "바나나")),
        ("a ba\u00adnana\u00ad-split", "ba\u00adnana\u00ad"),
    ],
)
def test_the_place_is_that_in_the_text_itself(text: str, found: str):
    start, end = WholeWords(["香蕉", "café", "banana", "موز", "straße", "바나나"]).search(text)
    assert text[start:end] == found


def test_of_several_words_the_first_and_longest():
    words = WholeWords(["香", "香蕉", "蕉片"])
    assert words.search("一片香蕉片") == (2, 4) and words.search("蕉片香蕉") == (0, 2)
    assert WholeWords(["a.b"]).search("axb") is None
    assert WholeWords(["banana"], whole=False).search("bananabread") == (0, 6)
    assert WholeWords(["केल"], whole=False).search("केला")


def test_what_is_folded():
    assert fold("ＴＨＥ Café™") == fold(normalize("NFD", "the café™")) == "the café™"
    assert narrow(normalize("NFD", "Ｃafé，ﾊﾞ")) == "Café,バ"
