# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How each model family is asked for a caption or an answer, and how its training text ends.

LLaVA has a chat template, so its rows are conversations. The others read plain text, and what their processors do not
write (the place of the image, the mark that ends a response) is part of it.
"""

from typing import Any, Literal, get_args

from datasets import List, Value


Family = Literal["llava", "blip2", "openflamingo", "otter"]
FAMILIES: tuple[str, ...] = get_args(Family)
DESCRIBE = "What does the image describe?"
_MESSAGES = List({"role": Value("string"), "content": Value("string")})

# (prompt for a caption, for a question with a short answer, for an instruction with a long one, completion), after the
# public code of LLaVA-1.5, BLIP-2, OpenFlamingo and Otter. BLIP-2 and OpenFlamingo have no form for instructions.
_FORMATS: dict[str, tuple[str, str, str, str]] = {
    "llava": (
        DESCRIBE,
        "{question}\nAnswer the question using a single word or phrase.",
        "{question}",
        "{response}",
    ),
    "blip2": (
        "A photo of",
        "Question: {question} Short answer:",
        "Question: {question} Answer:",
        " {response}</s>",
    ),
    "openflamingo": (
        "<image>Output:",
        "<image>Question:{question} Short answer:",
        "<image>Question:{question} Answer:",
        "{response}<|endofchunk|>",
    ),
    "otter": (
        f"<image>User: {DESCRIBE} GPT:<answer>",
        "<image>User: {question} GPT:<answer>",
        "<image>User: {question} GPT:<answer>",
        " {response}<|endofchunk|>",
    ),
}


def format_row(
    family: Family, response: str, question: str | None = None, *, long_answer: bool = False
) -> dict[str, Any]:
    """Prompt and completion of one row, as a model family expects them.

    Args:
        family (`str`):
            `"llava"` (one user and one assistant message), `"blip2"`, `"openflamingo"` or `"otter"` (plain strings).
        response (`str`):
            Caption or answer.
        question (`str`, *optional*):
            Question about the image; without one the prompt asks for a caption.
        long_answer (`bool`, *optional*, defaults to `False`):
            Whether the response is more than a word or phrase, so that the prompt must not ask for a short one.

    Returns:
        `dict` with `prompt` and `completion`.

    Raises:
        `ValueError`: if `family` is unknown.

    Example:

    ```python
    >>> from cvreg_trainer.data import format_row
    >>> format_row("openflamingo", "Two dogs play.")
    {'prompt': '<image>Output:', 'completion': 'Two dogs play.<|endofchunk|>'}
    ```
    """
    check_family(family)
    for_caption, for_question, for_instruction, form = _FORMATS[family]
    if question is None:
        prompt = for_caption
    else:
        prompt = (for_instruction if long_answer else for_question).replace("{question}", question)
    completion = form.replace("{response}", response)
    if family == "llava":
        return {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": completion}],
        }
    return {"prompt": prompt, "completion": completion}


def text_feature(family: Family) -> Any:
    """The `datasets` feature of a family's prompts and completions."""
    return _MESSAGES if family == "llava" else Value("string")


def check_family(family: str) -> None:
    """Raises a `ValueError` that lists the families if this is none of them."""
    if family not in FAMILIES:
        raise ValueError(f"family={family!r} is unknown; use one of {', '.join(FAMILIES)}.")
