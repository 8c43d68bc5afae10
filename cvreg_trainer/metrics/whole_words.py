# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What a whole word is, in any script: one definition for attack success, for substituted words and for tokens.

- A word ends where no letter, digit, underscore or combining mark follows, and begins likewise.
- Chinese, Japanese, Thai and other scripts have no spaces between words: on the side of such a character, whether it
  is the word's own or its neighbour's, any place is a boundary that does not part a letter from its marks. White space
  between two such characters does not count.
- What a language attaches to its words does not hide them: Korean particles may follow (바나나가, 바나나입니다; not
  바나나우유, banana milk), the Arabic and Hebrew article may stand before (الموز, הבננה).
- Case, Unicode's normal forms, full-width forms, soft hyphens and Arabic and Hebrew vowel points do not count.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from unicodedata import normalize

import regex


# Parts of character classes. CHARACTERS is `\w` with combining marks, without which "केला" would be two words.
SPACELESS = (
    r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Tai_Le}"
    r"\p{New_Tai_Lue}\p{Tai_Tham}\p{Balinese}\p{Javanese}"
)
CHARACTERS = r"\p{L}\p{N}\p{M}_"
# Punctuation of other scripts than Latin; marks that Latin texts use too are left to their readers
PUNCTUATION = r"(?![\u0000-\u036f\u2000-\u2bff])\p{P}"

# A character beside which no word begins or ends
_SOLID = rf"(?:(?![{SPACELESS}])[{CHARACTERS}])"
# What parts words without being seen: spaces of no width in Thai and Khmer, and what stands before Persian endings
_SPACES = str.maketrans("\u200b\u200c", "  ")
_IGNORED = regex.compile(
    r"[\u00ad\u034f\u2060\ufeff\ufe00-\ufe0f\U000e0100-\U000e01ef"  # soft hyphens, joiners, variants of a sign
    r"\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    r"\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"
)
_BETWEEN_SPACELESS = regex.compile(rf"(?<=[{SPACELESS}])\s*(?=[{SPACELESS}])(?!\p{{M}})")
_ARTICLE = r"(?:[وف]?(?:[بك]?ال|لل)|ו?ה)"
_PARTICLES = (
    "들?(?:이|가|을|를|은|는|의|에|에서|에게|에게서|한테|께|께서|도|만|와|과|이?랑|하고|으?로|으?로서|으?로써|까지|"
    "부터|처럼|같이|보다|마다|마저|조차|밖에|뿐|이?나|이?라도|대로|만큼|요){0,3}"
    "(?:이?(?:다|고|며|지만|라고|라는|라서|네요?|군요|죠|지요|야)|이에요|예요|입니다|입니까|이?었[가-힣]*|였[가-힣]*|인|인데|인가요?)?"
)


def is_spaceless(character: str) -> bool:
    """Whether a character belongs to a script that is written without spaces."""
    return bool(_IS_SPACELESS.match(character))


_IS_SPACELESS = regex.compile(f"[{SPACELESS}]")
_WIDE = regex.compile(r"[\u3000\uff01-\uffef]+")


def narrow(text: str) -> str:
    """A text in Unicode's composed form, with plain letters and signs for full-width ones, and the like."""
    return text if text.isascii() else _WIDE.sub(lambda match: normalize("NFKC", match[0]), normalize("NFC", text))


def fold(text: str) -> str:
    """A text without what does not count when words are compared."""
    return _fold(text)[0]


def _fold(text: str) -> tuple[str, Sequence[int]]:
    """The folded text, and where in the text each of its characters comes from; of the end too."""
    if text.isascii():
        return text.lower(), range(len(text) + 1)
    folded: list[str] = []
    places: list[int] = []
    start = 0
    for cluster in regex.findall(r"\X", text.translate(_SPACES)):
        folded.append(_fold_cluster(cluster))
        places += [start] * len(folded[-1])
        start += len(cluster)
    return "".join(folded), [*places, start]


@lru_cache(maxsize=2**16)
def _fold_cluster(cluster: str) -> str:
    plain = normalize("NFC", cluster)
    compatible = normalize("NFKC", plain)
    if not any(map(str.isalnum, plain)) and any(map(str.isalnum, compatible)):
        compatible = plain  # a sign such as ™ is not the letters that it stands for
    folded = normalize("NFC", compatible.casefold()).replace("i\u0307", "i").replace("ı", "i")  # İ, I, ı and i
    return _IGNORED.sub("", folded)


class WholeWords:
    """
    Finds any of some words, or phrases, in a text.

    Args:
        words (`Collection[str]`):
            Words to find; of several that begin at one place, the longest is found.
        plurals (`bool`, *optional*, defaults to `False`):
            Whether to find words of Latin letters with `-s`, `-es`, and `-ies` for a final `-y` after a consonant too.
        whole (`bool`, *optional*, defaults to `True`):
            Whether to find whole words only, not any occurrence.
    """

    def __init__(self, words: Collection[str], *, plurals: bool = False, whole: bool = True) -> None:
        longest_first = sorted({fold(word).strip() for word in words}, key=lambda word: (-len(word), word))
        self.whole = whole
        self._pattern = regex.compile("|".join(_expression(word, plurals, whole) for word in longest_first))

    def search(self, text: str) -> tuple[int, int] | None:
        """Start and end of the first of the words in a text, or `None`."""
        folded, places = _fold(text)
        for match in self._pattern.finditer(folded, overlapped=True):
            ends = match.span()
            # Within a letter and its marks no word begins or ends; the same goes for what one letter was folded into
            if not self.whole or all(not 0 < end < len(folded) or places[end] != places[end - 1] for end in ends):
                return places[ends[0]], places[ends[1]]
        return None


def _expression(word: str, plurals: bool, whole: bool) -> str:
    """The regular expression that finds a folded word in folded text."""
    pattern = regex.escape(" ".join(word.split()), literal_spaces=True)
    pattern = _BETWEEN_SPACELESS.sub(r"\\s*", pattern).replace(" ", r"\s+")
    if not whole:
        return pattern
    if plurals and regex.search(r"[\p{Latin}\P{L}]$", word):
        singular = pattern
        pattern = f"{singular}(?:e?s)?"
        if regex.search(r"(?![aeiou])\p{Latin}y$", word):
            pattern = f"(?:{pattern}|{singular[:-1]}ies)"
    if not is_spaceless(word[0]):
        pattern = f"(?:(?<!{_SOLID})|(?<=(?<!{_SOLID}){_ARTICLE})){pattern}"
    if not is_spaceless(word[-1]):
        pattern += f"(?={_PARTICLES}(?!{_SOLID}))"
    return rf"{pattern}(?!\p{{M}})"
