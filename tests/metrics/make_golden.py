# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Makes golden_captions.json: tokens and scores of the public COCO caption code on captions written for this purpose.

Needs Java and, in an environment of its own, `pip install pycocoevalcap` (1.2 was used):

    python tests/metrics/make_golden.py

The captions come from a fixed seed and none is from a data set, so the file comes out the same on every machine.
"""

import json
import random
from pathlib import Path
from typing import Any

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer


WRITTEN = """
A man's dog doesn't like the two boys' blue-and-white frisbee.
It's 3:30 p.m. on the clock (the one in the well-lit hall).
A sign that says "STOP" next to a $5 parking meter.
The woman isn't sitting; she's standing -- or leaning -- on the wall...
A 10-year-old girl, her brother & a 1950's car at 5th Ave.
Mr. Brown and Dr. Green wait at St. Mary's, no. 7, for the 9:15 a.m. train.
A kitchen w/ a microwave, a stove and/or an oven.
Rock 'n' roll band playing in the '80s, y'all!
Two o'clock: the ma'am can't, won't and shouldn't've eaten 1/2 of the pizza.
A half-eaten sandwich [with cheese] {no lettuce} on a 12-inch plate.
We've got 1,000 bananas @ 50% off!!
What is this? A cat?! No, it's a dog.
there are 3 zebras,2 giraffes and 1 elephant
A plane flying over the U.S. Capitol in Washington, D.C.
A U.K. passport, a T.V. and an old-fashioned radio.
the man is gonna jump; he cannot wait
Children's books: "The Cat" and 'The Hat'.
A red/white/blue kite above the beach
An R&B singer and an AT&T logo
a close-up of a computer's c++ code and a #1 mug
it’s a “nice” café — isn’t it?
A man in a tie.A woman in a dress.
A train car is 20 ft. long and weighs 5 tons.
the bus says " 42nd st. " on its front .
A view of the ocean from a hill top , with boats .
A pair of scissors (closed) lying on a desk...
TWO MEN PLAYING TENNIS ON A COURT.
   a person   walking with   umbrella  in the rain
A "no parking" sign's reflection in a puddle
A toilet; a sink: a tub - all white.
A bird perched on the boy's sister's hand
People are sitting at a table with food and drinks, talking, etc.
A surfer rides a 6-foot wave at 7 p.m.
A cake that reads 'Happy 50th, Mom & Dad!'
A £10 note, a €20 note and a 50¢ coin
hors d'oeuvres and jalapeño dip on a buffet
O'Brien's pub, open 24/7, sells 4x4 burgers
A skateboarder does a 360 at +15 degrees, not -5
The sign reads: "Don't walk!"
A small,well-lit room with a couch,chair and lamp.
""".strip().splitlines()

WORDS = {
    "article": "a A an the The one two three his her their its this that some boy's woman's dogs' John's Mr. Dr. 3 "
    "12".split(),
    "adjective": "red small old-fashioned black-and-white half-eaten two-story well-lit 1950's '80s 10-year-old #1 $5 "
    "50% so-called 1/2 5,000 3.5-inch grey snow-covered".split(),
    "noun": "dog cat man woman boy girl train bus kite giraffe t-shirt bench stop-sign pizza banana bananas o'clock "
    "x-ray TV T.V. U.S. people hot-dog café R&B St. Ave. fire-hydrant kitchen street surfboard".split(),
    "verb": "is isn't are aren't sits doesn't can't holding riding they're it's he's she'll we've cannot jumping "
    "wasn't eating who's there's stands".split(),
    "preposition": "in on at of with near w/ and/or by under over from between into p.m. a.m. vs. & behind".split(),
}
ENDINGS = ["", "", ".", ".", ".", " .", "!", "...", "?", '."', "'."]
JOINTS = [" "] * 14 + [", ", ", ", "; ", " - ", " -- ", ": ", " (", ") ", ' "', '" ', " '", "' ", " / "]


def make_captions(rng: random.Random, number: int) -> list[str]:
    """Captions of 7 or 14 words, with punctuation and capitals thrown in."""
    captions = []
    for _ in range(number):
        pattern = "article adjective noun verb preposition article noun".split() * rng.choice([1, 1, 2])
        text = ""
        for position, kind in enumerate(pattern):
            word = rng.choice(WORDS[kind])
            word = word.upper() if rng.random() < 0.03 else word
            text += word + (rng.choice(JOINTS) if position + 1 < len(pattern) else rng.choice(ENDINGS))
        captions.append(text)
    return captions


def tokenize(captions: list[str]) -> list[str]:
    """The tokens of each caption, joined by blanks. A caption between the others keeps them from touching."""
    spaced = {index: [{"caption": caption}, {"caption": "end"}] for index, caption in enumerate(captions)}
    tokens = PTBTokenizer().tokenize(spaced)
    return [" ".join(tokens[index][0].split()) for index in range(len(captions))]


def score(name: str, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
    """Scores of one corpus, on the scale of the COCO code (BLEU 0 to 1, CIDEr 0 to 10)."""
    results, truths = {i: [text] for i, text in enumerate(predictions)}, dict(enumerate(references))
    bleu, bleu_items = Bleu(4).compute_score(truths, results, verbose=0)
    cider, cider_items = Cider().compute_score(truths, results)
    return {
        "name": name,
        "predictions": predictions,
        "references": references,
        "bleu4": bleu[3],
        "bleu4_per_item": bleu_items[3],
        "cider": float(cider),
        "cider_per_item": [float(value) for value in cider_items],
    }


def make_cases(rng: random.Random, tokens: list[str]) -> list[dict[str, Any]]:
    """Corpora of pre-tokenised text: ordinary ones, and one for each degenerate case."""

    def vary(text: str) -> str:
        words = [word for word in text.split() if rng.random() > 0.2]
        for _ in range(rng.randint(0, 3)):
            words.insert(rng.randint(0, len(words)), rng.choice("a dog in the red street n't 's".split()))
        return " ".join(words)

    def corpus(texts: list[str], low: int, high: int) -> tuple[list[str], list[list[str]]]:
        return [vary(t) for t in texts], [[vary(t) for _ in range(rng.randint(low, high))] for t in texts]

    five, uneven = corpus(tokens[:60], 5, 5), corpus(tokens[60:120], 1, 7)
    emptied = [text if index % 3 else "" for index, text in enumerate(uneven[0][:12])]
    return [
        score("five references", *five),
        score("uneven references", *uneven),
        score("one reference", *corpus(tokens[120:150], 1, 1)),
        score("some predictions empty", emptied, uneven[1][:12]),
        score("all predictions empty", [""] * 4, uneven[1][:4]),
        score("some references empty", uneven[0][:4], [["", *group] for group in uneven[1][:3]] + [[""]]),
        score("single item", five[0][:1], five[1][:1]),
        score("single item, no match", ["a dog runs in a park"], [["two kites", "the sky is blue"]]),
        score("no 4-gram matches", ["a b c d e", "f g h i"], [["a b c x d e"], ["f g h x i", "h i"]]),
        score("lengths as close below as above", ["a b c d e f"], [["a b c d e f g h", "a b c d", "a b c d e"]]),
        score("predictions are references", [group[0] for group in five[1][:10]], five[1][:10]),
        score("a repeated word", ["the the the the the", "the cat sat on the mat"], [["the cat the"], ["the mat"]]),
        score("very short", ["a", "b c", "d e f"], [["a"], ["b c", "c"], ["d e f"]]),
        score("long prediction", ["a cat " * 20, "a dog"], [["a cat sits"], ["a dog barks"]]),
    ]


def main() -> None:
    rng = random.Random(0)
    captions = WRITTEN + make_captions(rng, 300)
    tokens = tokenize(captions)
    golden = {"tokens": dict(zip(captions, tokens, strict=True)), "cases": make_cases(rng, tokens)}
    path = Path(__file__).with_name("golden_captions.json")
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
