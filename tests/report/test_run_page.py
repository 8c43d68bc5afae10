# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The report as a file: what it says of one run and of two, that texts stay texts, and that it loads nothing."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import needs_chromium, open_browser
from run_folders import make_run

from cvreg_trainer.report import read_run, write_run_page


HOSTILE = "</dd></style><script>window.__pwned = 1</script><img src=x onerror='window.__pwned = 2'>{{ 7 * 7 }}"


class Parser(HTMLParser):
    """Elements with their attributes, and all texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def write(path: Path, *folders: Path, title: str | None = None) -> tuple[str, Parser]:
    write_run_page([read_run(folder) for folder in folders], path, title)
    text = path.read_text(encoding="utf-8")
    parser = Parser()
    parser.feed(text)
    return text, parser


def words(parser: Parser) -> str:
    return " ".join(" ".join(parser.texts).split())


def test_one_run(tmp_path: Path) -> None:
    _, parser = write(tmp_path / "report.html", make_run(tmp_path / "one", options={"seed": 3}, flagged=2))
    said = words(parser)
    assert "Run: one" in said and "30 steps" in said and "Options of one seed 3" in said
    assert "70.2 60.0 to 80.5" in said and "2 of 20 rows flagged (10.0 %): the audit ." in said
    assert "a red cat 0, a red cat 1 why a red cat" in said  # two words, one reason
    assert "Options that differ" not in said
    assert len([tag for tag, _ in parser.tags if tag == "polyline"]) == 1
    assert len([tag for tag, _ in parser.tags if tag == "img"]) == 16
    links = [attrs["href"] for tag, attrs in parser.tags if tag == "a"]
    assert links == ["one/audit/audit.html"]


def test_runs_are_compared(tmp_path: Path) -> None:
    common = {"seed": 1, "output_dir": "x"}
    first = make_run(tmp_path / "a b" / "first", options={**common, "screening": "off"}, text="a dog")
    second = make_run(tmp_path / "second", (3.0, 2.0), {**common, "screening": "drop", "output_dir": "y"}, flagged=1)
    (first / "evaluation" / "examples.json").write_text((second / "evaluation" / "examples.json").read_text())
    third = make_run(tmp_path / "third")
    (tmp_path / "reports").mkdir()
    _, parser = write(tmp_path / "reports" / "report.html", first, second, third)
    said = words(parser)
    # Of the third nothing is known
    assert "Options that differ Option first second third screening off drop not known Answers" in said
    lines = [attrs for tag, attrs in parser.tags if tag == "polyline"]
    assert [line["class"] for line in lines] == ["curve run0", "curve run1", "curve run2"]
    # A row that several have answered is shown once
    assert len([tag for tag, _ in parser.tags if tag == "img"]) == 16
    assert said.count("clean 0 a red cat") == 3 and said.count("True truth 0 a red cat") == 2
    links = [attrs["href"] for tag, attrs in parser.tags if tag == "a"]
    assert links == ["../a%20b/first/audit/audit.html", "../second/audit/audit.html", "../third/audit/audit.html"]
    assert "No word is flagged." in said


def test_texts_stay_texts_and_nothing_is_loaded(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", options={HOSTILE: [HOSTILE]}, text=HOSTILE, flagged=2)
    text, parser = write(tmp_path / "report.html", folder, title=HOSTILE)
    assert not [tag for tag, _ in parser.tags if tag in ("script", "iframe", "object", "link") and tag != "link"]
    for tag, attrs in parser.tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("style", "action")]
        assert tag != "img" or attrs["src"].startswith("data:image/jpeg;base64,")
    assert HOSTILE in "".join(parser.texts) and "{{ 7 * 7 }}" in text
    policy = next(attrs["content"] for _, attrs in parser.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;") and f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "script-src" not in policy and "url(" not in style


def test_a_run_that_was_only_evaluated(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    _, parser = write(tmp_path / "report.html", folder / "evaluation")
    said = words(parser)
    assert "Run: evaluation" in said and "no log" in said and "Curves" not in said and "BLEU-4" in said


def test_names_are_needed(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / name / "run")) for name in "ab"]
    with pytest.raises(ValueError, match="names of their own, got run, run"):
        write_run_page(runs, tmp_path / "report.html")
    with pytest.raises(ValueError, match="got none"):
        write_run_page([], tmp_path / "report.html")


@needs_chromium
def test_it_fits_a_telephone_and_runs_nothing(tmp_path: Path) -> None:
    long = "https://" + 60 * "long"
    folders = [
        make_run(tmp_path / "x".rjust(70, "n"), options={"a" * 60: "b" * 300}, text=HOSTILE + long, flagged=2),
        make_run(tmp_path / "other", options={"a" * 60: "c"}, text=long, flagged=1),
    ]
    write(tmp_path / "report.html", *folders)
    with open_browser(tmp_path / "profile") as browser:
        for width in (1280, 400):
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
            )
            browser.get((tmp_path / "report.html").as_uri())
            sizes = "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
            needed, given = browser.execute_script(sizes)
            assert needed == given and width - 20 < given <= width  # less the scroll bar
            # Nor does a part of the page have to be scrolled, or is it cut off
            wide = """return [...document.querySelectorAll("main *, header *")].filter((part) =>
                part.getBoundingClientRect().right > innerWidth + 1).map((part) => part.outerHTML.slice(0, 80))"""
            assert browser.execute_script(wide) == []
        colours = {}
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            colours[scheme] = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert colours["light"] != colours["dark"]
        assert browser.execute_script("return typeof window.__pwned") == "undefined"
        assert browser.get_log("browser") == []
