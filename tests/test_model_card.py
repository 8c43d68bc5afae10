# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
import re
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from cvreg_trainer import CrossViewDefenseConfig
from cvreg_trainer.model_card import HEADING, defence_section, with_section
from cvreg_trainer.screening.verdict.findings import WordFinding
from cvreg_trainer.screening.verdict.screen import Screen


def found(*words: str) -> Screen:
    findings = [WordFinding(word, 5, 2.0, True, f"{word!r} stays unexplained") for word in words]
    return Screen(np.zeros(4), np.array([True, False, False, False]), False, [""] * 4, findings)


def config(tmp_path: Path, **options: object) -> CrossViewDefenseConfig:
    return CrossViewDefenseConfig(str(tmp_path), use_cpu=True, report_to="none", **options)  # type: ignore[arg-type]


def test_it_names_the_values_and_what_was_left_out(tmp_path: Path) -> None:
    args = config(tmp_path, lambda_patch=0.25, screening="drop", seed=3)
    section = defence_section(args, True, found("banana"))
    assert "`lambda_patch=0.25`" in section and "seed 3: 1 of 4 training rows (25.0%)" in section
    assert "| ` banana ` | 5 | ` 'banana' stays unexplained ` |" in section.splitlines()


@pytest.mark.parametrize("num_rows", [199, 200])
def test_it_says_that_few_rows_are_not_looked_at(tmp_path: Path, num_rows: int) -> None:
    nothing = np.zeros(num_rows)
    screen = Screen(nothing, nothing > 0, False, [""] * num_rows, [])
    section = defence_section(config(tmp_path, screening="drop"), False, screen)
    assert ("finds nothing in fewer than 200 rows" in section) == (num_rows == 199)


def test_without_a_defence_it_says_so(tmp_path: Path) -> None:
    assert "None: screening was off" in defence_section(config(tmp_path, screening="off"), False, None)


@pytest.mark.parametrize(
    "word", ["a`b``c", "x|y", "<script>alert(1)</script>", "line\n# Heading", "](https://example.com)", "\u202eabc"]
)
def test_words_of_the_data_stay_inside_their_code_span(word: str, tmp_path: Path) -> None:
    section = defence_section(config(tmp_path, screening="drop"), False, found(word))
    html = MarkdownIt("commonmark").enable("table").render(section)
    [body] = re.findall("<tbody>(.*)</tbody>", html, flags=re.DOTALL)
    assert body.count("<tr>") == 1 and body.count("<code>") == 2 and body.count("<td") == 3
    assert "<script" not in html and "<a " not in html and html.count("<h2") == 1 and "<h1" not in html
    assert "\u202e" not in html


def test_the_section_stands_in_front_of_the_versions() -> None:
    card = "# Card\n\ntext\n\n### Framework versions\n\n- TRL\n\n## Citations\n"
    whole = with_section(card, "## New\n")
    assert whole.index("## New") < whole.index("### Framework") and whole.replace("## New\n\n", "") == card
    assert with_section("# Card\n", "## New\n") == "# Card\n\n## New\n"
    assert HEADING.startswith("## ")
