# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The caption tokenizer of the COCO metrics, without Java.

Published BLEU and CIDEr numbers are computed on the tokens of the Stanford PTB tokenizer, lower-cased and stripped of
punctuation. This is an independent description of what that tool does to captions, found by observing its output: one
regular expression whose alternatives stand in the order in which they win, and a list of what is dropped. On captions
the tokens are the same. Known differences are left outside caption text (mark-up, addresses with a path, telephone
numbers in brackets, words run together after an apostrophe), and in one place on purpose: the tool lets the first word
of the *next* caption decide whether a final "b." keeps its period, here a caption's tokens depend on it alone.

Other scripts, for which that tool was not made, are read as is usual for them: by characters where there are no spaces
between words, and with combining marks in one token with their letters.
"""

import re

import regex

from .whole_words import PUNCTUATION, SPACELESS, narrow


__all__ = ["COCO_PUNCTUATION", "tokenize_caption"]

COCO_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens dropped before scoring. Brackets are not among them: COCO's list names `-LRB-`, the tokens are `-lrb-`."""

_REPLACED = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_REPLACED |= {"£": "#", "€": "$", "¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_REPLACED |= {"“": "``", "”": "''", "«": "``", "»": "''", '"': "''", "‘": "`", "’": "'"}
_REPLACED |= {"–": "--", "—": "--", "…": "..."}
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&nbsp;": " "}

# Words written as one that count as two.
_COMPOUNDS = {"cannot": "can not", "gonna": "gon na", "wanna": "wan na", "gotta": "got ta", "lemme": "lem me"}
_COMPOUNDS |= {"gimme": "gim me"}

# Abbreviations that keep their period; those before a number only; those that do so only when capitalised.
_ABBREVIATIONS = """
adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bhd bldg blvd brig bros calif capt cf cie cmdr co
col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga gen gov govs
hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs mich minn mlle mme mo mon
mont mr mrs ms msgr mt natl neb nev nov oct okla penn pfc ph plc pres prof profs rd rep reps rev rt sen sens sep sept
seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo
""".split()
_BEFORE_NUMBER = "art ca fig figs no nos op pp prop".split()
# Words that, capitalised, end the sentence before them: the letter in "plan b. The" loses its period.
_STARTERS = """
A About After An As At But Earlier He Her Here However If In It Last Many More Now Once One Other Our She Since So Some
Such That The Their Then There These They This We What When While Yet You
""".split()
_CAPITALISED = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash".split()

_LETTER = r"[^\W\d_]"
_ALNUM = r"[^\W_]"
_PART = rf"{_ALNUM}+(?:-{_LETTER}+)*"

_TOKEN = re.compile(
    rf"""
    {_LETTER}+(?=\s)  # most words of most captions: nothing else can match them, and it saves trying
  | (?P<tag> </?[A-Za-z][\w:.-]*(?:\s+[A-Za-z][\w-]*(?:=(?:"[^"]*"|[^\s"'<>]+))?)*\s*/?> )
  | (?P<address> (?:https?://|www\.)[^\s"<>|()]*[^\s"<>|().,!?;:'/-]
               | {_ALNUM}[^\s"<>|()@]*@(?:[^\s"<>|().@]+\.)*[^\s"<>|().@]+ | [@][A-Za-z_]\w* | [#]{_LETTER}+ )
  | (?P<smiley> [<>]?[:;=]['’o*-]?[()DPp](?!{_ALNUM}) | \^_\^ | -_- )
  | (?:{_LETTER}['’])?{_ALNUM}+(?:[-.]{_ALNUM}+)*\.(?=[,;:])
  # clitics: can't -> ca n't, boy's -> boy 's, rock'n'roll -> rock 'n' roll
  | {_LETTER}+?(?=n['’`‘]t) | n['’`‘]t{_LETTER}*
  | 'n' | ['’]em | \bol' | '(?:till?|cause)(?!{_ALNUM}) | 't(?=(?:is|was)(?:n't)?(?!{_ALNUM}))
  | ['’]\d\d(?:s(?!{_ALNUM})|(?=\s|$)) | (?P<clitic> ['’](?:s|m|d|n|re|ve|ll)(?!{_LETTER}) )
  # apostrophes that belong to the word: o'clock, d'oeuvres, hallowe'en, ma'am
  | (?-i:[A-HJ-XZ]|[dlno])['’]{_LETTER}{{2,}}(?:-{_ALNUM}+)* | c'mon | li'l | nat'l | e'er | s'mores
  | {_LETTER}+[aeiouy]['’][aeiou]{_LETTER}*
  | [yj]['’](?={_LETTER}{{2}})
  # words that keep their period
  | (?:{_LETTER}\.){{2,}}(?:-{_ALNUM}+|(?!{_ALNUM}))
  | {_LETTER}\.(?!{_LETTER})(?!\s+(?-i:{"|".join(_STARTERS + [word.upper() for word in _STARTERS])})(?![\w'’&-]))
  | ph\.d\.(?!{_ALNUM})
  | (?:{"|".join(_ABBREVIATIONS)})\.(?!{_LETTER}) | (?:{"|".join(_BEFORE_NUMBER)})\.(?=\s*\d)
  | (?-i:{"|".join(_CAPITALISED)})\.(?!{_LETTER})
  # words and numbers joined by slashes, dashes, underscores or a period without space
  | c\+\+ | [cf]\#
  | \d+[ ]\d+/\d+ | \d+/\d+/\d+
  | {_LETTER}+(?:-{_LETTER}+)+/{_PART}(?:/{_PART})* | {_PART}(?:/{_PART})+
  | {_ALNUM}+(?:[-_]{_ALNUM}+)+ | {_ALNUM}+(?:,{_ALNUM}+)+(?:-{_ALNUM}+)+
  | {_LETTER}{_ALNUM}*(?:\.{_LETTER}{_ALNUM}*)+(?:-{_ALNUM}+)+ | {_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)+
  | (?-i:[A-Z]+(?:[&+][A-Z]+)+) | (?-i:[A-Z]+\$)
  | [-+]?\d+(?:[.,:]\d+)+(?:-{_ALNUM}+(?!{_ALNUM}|[.,:]\d))* | [-+]?(?:[.,:]\d+)+ | [-+]\d+
  | {_ALNUM}+
  # runs of one sign are one token
  | -{{5,}} | --+ | \.\.\. | [!?]+ | \*+ | _+ | <<|>> | @+ | \#+ | '' | ``
  | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)


_LETTER_OR_MARK = rf"(?:(?![{SPACELESS}])[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d])"
# What the expression above was not made for: characters of scripts without spaces, words with combining marks, and
# punctuation, which is dropped
_OTHER_SCRIPTS = regex.compile(
    rf"(?P<token>(?=[{SPACELESS}])(?!\p{{P}})\X\p{{M}}*|(?<!{_LETTER_OR_MARK})"
    rf"(?:(?![{SPACELESS}])[\p{{L}}\p{{N}}])*+(?<=\p{{L}})[\p{{M}}\u200c\u200d]{_LETTER_OR_MARK}*)|{PUNCTUATION}"
)


def tokenize_caption(caption: str) -> list[str]:
    """
    Splits a caption into the lower-case tokens on which COCO's caption metrics are defined.

    Clitics are split (`doesn't` to `does n't`, `boy's` to `boy 's`), currency and percent signs separated, brackets
    written `-lrb-` and `-rrb-`, times, abbreviations and hyphenated words (`3:30`, `p.m.`, `well-lit`) kept whole, and
    the tokens of [`COCO_PUNCTUATION`] dropped. Chinese, Japanese, Thai and other scripts without spaces between words
    give one token a character (with its combining marks), and their punctuation is dropped too.

    Args:
        caption (`str`):
            Caption in any case and script, with or without punctuation.

    Returns:
        `list[str]`: The tokens; empty for a caption without words.

    Example:

    ```python
    >>> tokenize_caption("A boy's dog (the big one) doesn't sit.")
    ['a', 'boy', "'s", 'dog', '-lrb-', 'the', 'big', 'one', '-rrb-', 'does', "n't", 'sit']
    >>> tokenize_caption("一只狗，2 dogs。")
    ['一', '只', '狗', '2', 'dogs']
    ```
    """
    if "&" in caption:
        for entity, character in _ENTITIES.items():
            caption = caption.replace(entity, character)
    caption = narrow(caption.replace("\u00ad", ""))  # the tool drops soft hyphens
    if caption.isascii():
        return _words(caption)
    tokens: list[str] = []
    start = 0
    for match in _OTHER_SCRIPTS.finditer(caption):
        tokens += _words(caption[start : match.start()])
        if match["token"]:
            tokens.append(match["token"].lower())
        start = match.end()
    return tokens + _words(caption[start:])


def _words(caption: str) -> list[str]:
    """The tokens of a caption that the tool was made for."""
    # It knows no character outside the basic plane (emoji)
    caption = re.sub(r"[\U00010000-\U0010ffff\u200b]", " ", caption)
    tokens: list[str] = []
    for match in _TOKEN.finditer(caption):
        token = match.group().lower()
        if token.isalpha() and token not in _COMPOUNDS:
            tokens.append(token)
        else:
            tokens.extend(_normalise(token, match.lastgroup))
    return [token for token in tokens if token not in COCO_PUNCTUATION]


def _normalise(token: str, group: str | None) -> list[str]:
    """What the tool writes for one match of `_TOKEN`: mostly one token."""
    if token in _REPLACED:
        return [_REPLACED[token]]
    if token.startswith("--"):
        return [token if len(token) > 4 else "--"]
    if group == "smiley":
        return [token.replace("(", "-lrb-").replace(")", "-rrb-")]
    if group == "clitic" or token.startswith("n’t"):
        token = token.replace("’", "'")
    return _COMPOUNDS.get(token, token).split()
