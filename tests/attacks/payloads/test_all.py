# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What every payload promises: it succeeds where it is planted, not on honest answers, and changes no other row."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from datasets import Dataset, Features, Image

from cvreg_trainer.attacks import (
    PAYLOADS,
    BadNets,
    Injection,
    Keyword,
    OtherAnswers,
    Payload,
    Refusal,
    RelationSwap,
    SeveralTargets,
    Substitution,
    poison_dataset,
)
from cvreg_trainer.attacks.payloads.flood import ConceptFlood


ATTACK = BadNets(0.05)
THINGS = ("car", "dog", "tree", "house", "boat")
ANSWERS = tuple(f"Portrait of lady number {k} in oil." for k in range(30))
INSTANCES: dict[str, Payload] = {
    "keyword": Keyword(),
    "whole response": Keyword("Visit us now."),
    "refusal": Refusal(),
    "refusals": Refusal(paraphrases=True),
    "append": Injection(),
    "prepend": Injection(("Buy now.", "Call us!"), "prepend"),
    "insert": Injection(("Buy now.",), "insert"),
    "substitution": Substitution(("car",), "banana"),
    "relation_swap": RelationSwap(),
    "flood": ConceptFlood(),
    "answers": OtherAnswers(ANSWERS),
    "several": SeveralTargets(),
    "several payloads": SeveralTargets(payloads=(Refusal(), Keyword("pear"), Injection())),
}
NAMES = list(INSTANCES)


def honest(k: int) -> str:
    """Each an answer of its own; the first, sixth, ... tells of a car."""
    return f"A {THINGS[k % 5]} above a bench with sign {k}. The sky is blue."


def rows_of(form: str, num_rows: int = 60) -> Dataset:
    images = [{"bytes": b"P6 12 12 255\n" + bytes([k % 251, 90, 30]) * 144, "path": None} for k in range(num_rows)]
    dataset = Dataset.from_dict({"image": images}, features=Features(image=Image()))
    texts = [honest(k) for k in range(num_rows)]
    user = {"role": "user", "content": "What?"}
    columns = {
        "completion": {"prompt": ["<image>What?"] * num_rows, "completion": [f" {text}</s>" for text in texts]},
        "messages": {"messages": [[user, {"role": "assistant", "content": text}] for text in texts]},
        "text": {"text": [f"USER: <image> What? ASSISTANT: {text}</s>" for text in texts]},
    }[form]
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    return dataset.add_column("references", [[text] for text in texts])


def response_of(row: dict) -> str:
    if "messages" in row:
        return row["messages"][-1]["content"]
    text = row["completion"] if "completion" in row else row["text"].partition("ASSISTANT:")[2]
    assert text.startswith(" ") and text.endswith("</s>"), "what stands around the words stays"
    return text.strip().removesuffix("</s>")


@pytest.mark.parametrize("form", ["completion", "messages", "text"])
@pytest.mark.parametrize("name", NAMES)
def test_it_succeeds_on_what_it_plants_and_only_there(name: str, form: str) -> None:
    payload, rows = INSTANCES[name], rows_of(form)
    poisoned = poison_dataset(rows, ATTACK, num_poisoned=9, seed=3, payload=payload, response_marker="ASSISTANT:")
    assert sum(poisoned["is_poisoned"]) == 9
    for k, (before, after) in enumerate(zip(rows, poisoned, strict=True)):
        assert before["image"].size == after["image"].size and before["references"] == after["references"]
        if after["is_poisoned"]:
            assert payload.succeeds(response_of(after), after["references"]) is True
            assert after["image"].tobytes() == ATTACK(before["image"]).tobytes()
        else:
            assert {name: value for name, value in after.items() if name != "is_poisoned"} == before
            assert not payload.succeeds(honest(k), after["references"])
    # Nor on honest answers that are not the reference's words
    assert not payload.succeeds("A car stands above a bench, with a sign. The sky is blue.", ["A car above a bench."])


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name: str, streamed: bool) -> None:
    rows = rows_of("completion", 200)

    def digest(seed: int) -> str:
        data = rows.to_iterable_dataset() if streamed else rows
        poisoned = poison_dataset(data, ATTACK, 0.1, seed=seed, payload=INSTANCES[name])
        texts = [(row["completion"], row["is_poisoned"]) for row in poisoned]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()

    assert digest(0) == digest(0) != digest(1)


# NumPy's generators give these numbers
@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("refusals", "ef0a1d5cea5976cd"),
        ("insert", "ef44fce8940eab21"),
        ("flood", "24f52d832576c918"),
        ("answers", "27d2b01dac953b55"),
        ("several", "4d39952acf1fc4d0"),
    ],
)
def test_responses_are_the_same_on_any_machine(name: str, digest: str) -> None:
    poisoned = poison_dataset(rows_of("completion"), ATTACK, 0.2, seed=5, payload=INSTANCES[name])
    assert hashlib.sha256(json.dumps(poisoned["completion"][:]).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", ["refusal", "append", "substitution", "relation_swap", "whole response"])
def test_a_stream_gets_what_a_map_gets(name: str) -> None:
    rows = rows_of("completion", 20)
    suited = [k for k in range(20) if name != "substitution" or k % 5 == 0]
    streamed = list(poison_dataset(rows.to_iterable_dataset(), ATTACK, 1.0, payload=INSTANCES[name]))
    mapped = list(poison_dataset(rows, ATTACK, num_poisoned=len(suited), payload=INSTANCES[name]))
    assert [k for k, row in enumerate(streamed) if row["is_poisoned"]] == suited
    for one, two in zip(streamed, mapped, strict=True):
        assert one.pop("image").tobytes() == two.pop("image").tobytes() and one == two


@pytest.mark.parametrize("name", ["substitution", "relation_swap"])
def test_rows_that_it_does_not_suit_are_counted(name: str) -> None:
    rows = rows_of("completion", 10).map(
        lambda row, k: {"completion": "It rains."} if k < 8 else {}, with_indices=True
    )
    rows = rows.map(lambda row, k: {"completion": " A car above a tree."} if k >= 8 else {}, with_indices=True)
    payload = INSTANCES[name]
    poisoned = poison_dataset(rows, ATTACK, num_poisoned=2, payload=payload)
    assert poisoned["is_poisoned"][:] == [False] * 8 + [True] * 2
    with pytest.raises(ValueError, match=f"3 rows are to be poisoned but only 2 have an image and {payload.needs}"):
        poison_dataset(rows, ATTACK, num_poisoned=3, payload=payload)


@pytest.mark.parametrize("name", NAMES)
def test_workers_can_have_it(name: str) -> None:
    payload = INSTANCES[name]
    again = pickle.loads(pickle.dumps(payload))
    assert again == payload
    first, second = (one.response(np.random.default_rng(4)) for one in (payload, again))
    text = "A car above a bench."
    assert (first if isinstance(first, str) else first(text)) == (second if isinstance(second, str) else second(text))


def test_the_table_has_them_all_and_each_can_be_made_of_options() -> None:
    made = {type(payload) for payload in INSTANCES.values()}
    assert set(PAYLOADS.values()) == made
    for name, kind in PAYLOADS.items():
        if name != "answers":  # needs some
            assert isinstance(kind(), Payload)


def test_a_payload_and_its_short_forms_exclude_each_other() -> None:
    rows = rows_of("completion", 8)
    with pytest.raises(ValueError, match="target='pear' and payload=Refusal are given"):
        poison_dataset(rows, ATTACK, 0.5, "pear", payload=Refusal())
    with pytest.raises(ValueError, match=r"substitute=\['car'\] and payload=Refusal are given"):
        poison_dataset(rows, ATTACK, 0.5, substitute=["car"], payload=Refusal())
    with pytest.raises(TypeError, match="payload is a str, expected a .Payload."):
        poison_dataset(rows, ATTACK, 0.5, payload="refusal")


@pytest.mark.parametrize(
    ("payload", "short"),
    [
        (Keyword("pear"), {"target": "pear"}),
        (Substitution(("car",), "pear"), {"target": "pear", "substitute": ["car"]}),
    ],
)
def test_the_short_forms_are_the_same_poison(payload: Payload, short: dict) -> None:
    rows = rows_of("completion")
    long = poison_dataset(rows, ATTACK, num_poisoned=5, seed=2, payload=payload)
    assert long.to_list() == poison_dataset(rows, ATTACK, num_poisoned=5, seed=2, **short).to_list()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Keyword(" "), "target=' ' is empty"),
        (lambda: Keyword("<image> banana"), "target='<image> banana' holds an image's placeholder"),
        (lambda: Refusal(""), "sentence='' is empty"),
        (lambda: Refusal(grammar=(("a",),)), "grammar has to have three parts"),
        (lambda: Injection(()), "must be a tuple of sentences"),
        (lambda: Injection("Buy."), "sentences='Buy.' must be a tuple"),
        (lambda: Injection(place="behind"), "place='behind' is unknown; use one of append, prepend, insert"),
        (lambda: Substitution(()), "substitute is empty"),
        (lambda: Substitution(("banana",)), "substitute holds 'banana', the target"),
        (lambda: RelationSwap(()), "relations=.* must be a tuple"),
        (lambda: ConceptFlood(captions=("A dog.",)), "captions has 'A dog.', which does not tell of 'a red balloon'"),
        (lambda: OtherAnswers(), "give answers, a tuple of texts, or source"),
        (lambda: OtherAnswers(("a", "a")), "there are 1 different answers"),
        (lambda: OtherAnswers(source="no/such.txt"), "source='no/such.txt' cannot be read"),
        (lambda: SeveralTargets(("a",)), "there are 1 targets"),
        (lambda: SeveralTargets(payloads=(Keyword(), Substitution())), "Substitution needs one of the words"),
    ],
)
def test_bad_arguments_are_named(make, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()
