# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The audit page in a real browser: it draws, sorts, filters, downloads, asks nobody, and runs nothing of the data."""

import json
import time

import numpy as np
import pytest
from browser import needs_chromium, open_browser
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from cvreg_trainer.screening.audit.audit import Audit, RowFinding, WordFinding
from cvreg_trainer.screening.audit.cause_findings import CauseFinding, Trigger
from cvreg_trainer.screening.audit.decisions import read_decisions


pytestmark = needs_chromium
PAYLOADS = [
    "<script>window.__pwned = 1</script>",
    "<img src=x onerror='window.__pwned = 2'>",
    "</script><script>window.__pwned = 3</script><!--",
    "<svg onload='window.__pwned = 4'><a href='javascript:window.__pwned = 5'>x</a></svg>",
    "{{ 7 * 7 }} ${window.__pwned = 6} \u2028 window.__pwned = 7 //",
]
NUM_ROWS = 120
# Row -> whether it is flagged, whether it is poisoned
FLAGGED = {row for row in range(NUM_ROWS) if row % 10 == 3}
POISONED = {row for row in range(NUM_ROWS) if row % 20 == 3} | {7}


def make_row(row: int) -> RowFinding:
    payload = PAYLOADS[row] if row < len(PAYLOADS) else ""
    noun = "banana" if row in POISONED else "cube"
    tokens = (("a red", 0.1), (f" {noun}", 9.0 if row in POISONED else 0.2), (f" {payload}", 0.0))
    response = "".join(piece for piece, _ in tokens)
    reason = f"'banana' stays unexplained {payload}" if row in FLAGGED else payload
    source = PAYLOADS[0] if row in FLAGGED else "crawl" if row % 2 else "shop"
    is_flagged, suspicion = row in FLAGGED, float(row in FLAGGED) + row / 1000
    return RowFinding(row, suspicion, is_flagged, reason, f"What? {payload}", response, tokens, source)


def make_findings() -> list[CauseFinding]:
    """A trigger in the lower right and in the question, one that was not looked for, and kept groups."""
    grid = tuple(tuple(8.0 if min(x, y) >= 12 else 0.1 for x in range(16)) for y in range(16))
    trigger = Trigger("region", (0.75, 0.75, 1.0, 1.0), grid, ((PAYLOADS[1], 12, 3),), 12, 108)
    moving = Trigger("moving", map=grid, boxes=((4, (0.25, 0.5, 0.5, 0.75)), (14, (0.0, 0.0, 0.25, 0.25))))
    numbers = "image and question", 0.9, 0.1, 0.0, 1e-20
    payloads = tuple(PAYLOADS)
    return [
        CauseFinding("poison", ("banana", *payloads), 12, (3, 13, 23), payloads, *numbers, trigger),
        CauseFinding("poison", ("refusal",), 3, (33,), ("no",), *numbers),
        CauseFinding("poison", ("coupon",), 2, (4, 14), ("no",), *numbers, moving),
        CauseFinding("noise", payloads, 40, (1,), payloads, *numbers),
        CauseFinding("content", ("zebra",), 30, (2,), ("a zebra",), *numbers),
    ]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads):
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        yield driver


@pytest.fixture(scope="module")
def page_url(tmp_path_factory):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for _ in range(NUM_ROWS)]
    words = [WordFinding("banana", 7, 9.0, True, "'banana' stays unexplained")]
    words += [WordFinding(payload, 1, 1.0, index == 0, payload) for index, payload in enumerate(PAYLOADS)]
    words += [WordFinding(f"word{index}", 2, 0.5, False, "") for index in range(10)]
    audit = Audit([make_row(row) for row in range(NUM_ROWS)], words, {"screening": PAYLOADS[0]}, make_findings())
    path = tmp_path_factory.mktemp("page") / "audit.html"
    labels = [row in POISONED for row in range(NUM_ROWS)]
    audit.to_html(path, dataset=[{"images": [image]} for image in images], labels=labels, num_thumbnails=60)
    return path.as_uri()


@pytest.fixture
def page(browser, page_url):
    """The page, freshly opened; after the test nothing may have run, failed or been asked for."""
    browser.get("about:blank")
    browser.get_log("performance")  # Chromium's own start page
    browser.get(page_url)
    yield browser
    assert browser.execute_script("return typeof window.__pwned") == "undefined"
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert page_url in urls
    assert [url[:80] for url in urls if url != page_url and not url.startswith(("data:", "blob:"))] == []


def shown_rows(page) -> list[int]:
    """Positions in the data set of the rows on the page, from top to bottom."""
    script = """const heads = [...document.querySelectorAll("#rows thead th")].map((head) => head.textContent);
        const place = heads.indexOf("Row");
        return [...document.querySelectorAll("#rows tbody tr")].map((row) => row.cells[place].textContent);"""
    return [int(text) for text in page.execute_script(script)]


def heading(page, name: str):
    return page.find_element(By.XPATH, f"//table[@id='rows']/thead//th[button[text()='{name}']]")


def sort_by(page, name: str) -> str:
    heading(page, name).find_element(By.TAG_NAME, "button").click()
    return heading(page, name).get_attribute("aria-sort")


def choose(page, name: str, value: str) -> None:
    Select(page.find_element(By.ID, name)).select_by_value(value)


RANKING = sorted(range(NUM_ROWS), key=lambda row: (-(row in FLAGGED) - row / 1000, row))


def test_it_shows_the_ranking_with_pictures_marks_and_charts(page):
    assert "120" in page.find_element(By.CSS_SELECTOR, ".counts").text
    assert "12 flagged (10.0 %)" in " ".join(page.find_element(By.CSS_SELECTOR, ".counts .flagged").text.split())
    assert shown_rows(page) == RANKING[:50]
    sizes = page.execute_script(
        "return [...document.querySelectorAll('#rows img')].map((image) => image.naturalWidth)"
    )
    assert sizes == [24] * 50
    mark = page.find_element(By.CSS_SELECTOR, "#rows tbody mark")
    assert mark.text == "banana" and mark.get_attribute("title") == "9 nats" and "named" in mark.get_attribute("class")
    assert mark.value_of_css_property("background-color") != "rgba(0, 0, 0, 0)"  # the style sheet is allowed
    # Two curves, a trigger's map and mean picture, and the histogram have a size
    charts = page.find_elements(By.CSS_SELECTOR, "svg")
    assert len(charts) == 5 and all(chart.size["width"] > 100 and chart.size["height"] > 50 for chart in charts)
    truth = page.find_element(By.CSS_SELECTOR, ".truth").text
    assert "7 of 120" in truth and "AUROC" in truth and "Average precision" in truth


def test_findings_show_the_trigger(page):
    first, second, third = page.find_elements(By.CSS_SELECTOR, "#findings article")
    text = first.text
    assert "1. banana" in text and "Looks like poison" in text and "0.90" in text and PAYLOADS[1] in text
    assert ": in 12 of these rows and 3 others" in text and "12 of these rows against those of 108 others" in text
    heat, mean = first.find_elements(By.TAG_NAME, "svg")
    label = "The flagged images differ most in the lower right, x 75% to 100%, y 75% to 100%. "
    label += "Peak 8; chance gives at most 1."
    assert heat.get_attribute("role") == "img" and heat.get_attribute("aria-label") == label
    # The strong cells of the map, and the region around them on the mean picture
    cells = page.execute_script(
        "return [...arguments[0].querySelectorAll('.cell')].map(c => [c.getAttribute('x'), c.getAttribute('y')])", heat
    )
    assert sorted((int(x), int(y)) for x, y in cells) == [(x, y) for x in range(12, 16) for y in range(12, 16)]
    region = mean.find_element(By.CSS_SELECTOR, ".region")
    assert [float(region.get_attribute(name)) for name in ("x", "y", "width", "height")] == [12, 12, 4, 4]
    # Each picture has its box, at the same shares
    figures = first.find_elements(By.CSS_SELECTOR, ".pictures figure")
    assert [figure.text for figure in figures] == ["row 3", "row 13", "row 23"]
    boxes = """return [...arguments[0].querySelectorAll('.framed')].map(frame => {
        const [image, mark] = [...frame.children].map(child => child.getBoundingClientRect());
        return [(mark.left - image.left) / image.width, (mark.top - image.top) / image.height,
            mark.width / image.width, mark.height / image.height]; })"""
    for box in page.execute_script(boxes, first):
        assert box == pytest.approx([0.75, 0.75, 0.25, 0.25], abs=0.02)
    assert "The trigger was not looked for" in second.text
    # One that moves has a box of its own in each picture, and no map over all of them
    assert "another in each: a trigger that moves" in third.text and not third.find_elements(By.TAG_NAME, "svg")
    places = page.execute_script(boxes, third)
    assert places[0] == pytest.approx([0.25, 0.5, 0.25, 0.25], abs=0.02)
    assert places[1] == pytest.approx([0, 0, 0.25, 0.25], abs=0.02)


def test_kept_groups_stand_under_their_verdicts(page):
    page.find_element(By.CSS_SELECTOR, "#kept-groups summary").click()
    lines = [line.text for line in page.find_elements(By.CSS_SELECTOR, "#kept tbody tr")]
    assert len(lines) == 4 and lines[0].startswith("Boilerplate or noise: kept.") and lines[1].startswith(PAYLOADS[0])
    assert lines[2].startswith("A style, or a concept") and lines[3].startswith("zebra 30 a zebra 0.90 0.10")


def test_it_sorts_by_every_column_in_both_directions(page):
    assert heading(page, "Rank").get_attribute("aria-sort") == "ascending"
    assert sort_by(page, "Suspicion") == "descending" and shown_rows(page) == RANKING[:50]
    assert sort_by(page, "Suspicion") == "ascending" and shown_rows(page) == RANKING[:-51:-1]
    assert heading(page, "Rank").get_attribute("aria-sort") == "none"
    assert sort_by(page, "Verdict") == "ascending" and shown_rows(page)[:13] == RANKING[:13]
    names = ["Rank", "Row", "Prompt", "Response", "Reason", "Suspicion"]
    buttons = page.find_elements(By.CSS_SELECTOR, "#rows thead button")
    assert [button.text for button in buttons] == [*names, "Verdict", "Source", "Truth"]


def test_it_filters_by_text_and_by_flag_and_by_truth(page):
    text = page.find_element(By.ID, "text")
    text.send_keys("BANANA")
    assert set(shown_rows(page)) == POISONED | FLAGGED
    assert page.find_element(By.ID, "shown").text == f"{len(POISONED | FLAGGED)} of 120 rows"
    choose(page, "verdict", "kept")
    assert shown_rows(page) == [7]
    text.clear()
    choose(page, "verdict", "flagged")
    assert shown_rows(page) == RANKING[:12]
    choose(page, "truth-filter", "clean")
    assert set(shown_rows(page)) == FLAGGED - POISONED
    text.send_keys("no such text")
    assert shown_rows(page) == [] and page.find_element(By.ID, "shown").text == "0 of 120 rows"


def test_it_turns_pages_and_says_which_rows_have_no_image(page):
    assert not page.find_element(By.ID, "previous").is_enabled()
    page.find_element(By.ID, "next").click()
    assert shown_rows(page) == RANKING[50:100] and "Page 2 of 3" in page.find_element(By.CSS_SELECTOR, ".pages").text
    assert len(page.find_elements(By.CSS_SELECTOR, "#rows img")) == 10
    assert page.find_element(By.CSS_SELECTOR, "#rows tr:nth-child(11) .remark").text == "no image here"
    page.find_element(By.ID, "last").click()
    assert shown_rows(page) == RANKING[100:] and not page.find_element(By.ID, "next").is_enabled()


def test_words_lead_to_their_rows(page):
    assert len(page.find_elements(By.CSS_SELECTOR, "#words tbody tr")) == 8
    page.find_element(By.ID, "all-words").click()
    assert len(page.find_elements(By.CSS_SELECTOR, "#words tbody tr")) == 16
    page.find_element(By.CSS_SELECTOR, "#words .word").click()
    assert page.find_element(By.ID, "text").get_attribute("value") == "banana"
    assert set(shown_rows(page)) == POISONED | FLAGGED


def test_the_keyboard_is_enough(page):
    page.find_element(By.ID, "verdict").send_keys("f", Keys.TAB, Keys.TAB, Keys.TAB)
    assert len(shown_rows(page)) == 12
    page.switch_to.active_element.send_keys(Keys.ENTER)  # the first heading
    assert heading(page, "Rank").get_attribute("aria-sort") == "descending"
    assert shown_rows(page) == RANKING[:12][::-1]


def test_the_kept_rows_come_as_files(page, downloads):
    kept = [row for row in range(NUM_ROWS) if row not in FLAGGED]
    for button, name in (("download-json", "kept_rows.json"), ("download-txt", "kept_rows.txt")):
        page.find_element(By.ID, button).click()
        WebDriverWait(page, 10, poll_frequency=0.05).until(lambda _, name=name: (downloads / name).exists())
    assert json.loads((downloads / "kept_rows.json").read_text()) == kept
    assert [int(line) for line in (downloads / "kept_rows.txt").read_text().splitlines()] == kept


def test_what_looks_like_code_is_shown_as_text(page):
    page.find_element(By.ID, "all-words").click()
    sort_by(page, "Row")
    cells = page.execute_script(
        """return [...document.querySelectorAll("#rows tbody tr")].slice(0, 5).map((row) =>
            ["prompt", "response", "reason"].map((name) => row.querySelector(`td.${name}`).textContent));"""
    )
    for payload, texts in zip(PAYLOADS, cells, strict=True):
        assert all(payload in text for text in texts)
    words = [word.get_property("textContent") for word in page.find_elements(By.CSS_SELECTOR, "#words .word")]
    assert words[1:6] == PAYLOADS
    assert page.find_element(By.CSS_SELECTOR, "#settings dd").get_property("textContent") == PAYLOADS[0]
    # The only elements that could run or load anything are the page's own
    assert page.execute_script("return document.querySelectorAll('script').length") == 2
    assert (
        page.execute_script("return document.querySelectorAll('a, iframe, object, embed, svg [onload]').length") == 0
    )
    sources = page.execute_script("return [...document.images].map((image) => image.src.slice(0, 11))")
    assert set(sources) == {"data:image/"}


def test_sources_are_counted_and_filter_the_rows(page):
    lines = [line.text.split() for line in page.find_elements(By.CSS_SELECTOR, "#sources tbody tr")]
    assert [line[-4:] for line in lines] == [
        ["12", "12", "100.0", "%"],
        ["48", "0", "0.0", "%"],
        ["60", "0", "0.0", "%"],
    ]
    page.find_elements(By.CSS_SELECTOR, "#sources tbody button")[1].click()
    assert sorted(shown_rows(page)) == [row for row in range(NUM_ROWS) if row % 2 and row not in FLAGGED]
    choose(page, "verdict", "flagged")
    assert shown_rows(page) == []
    choose(page, "source-filter", "1")
    assert set(shown_rows(page)) == FLAGGED


def test_decisions_come_out_as_the_file_that_the_training_reads(page, downloads):
    button = page.find_element(By.ID, "download-decisions")
    assert not button.is_enabled()
    first, second = RANKING[:2]
    for name, verdict in ((f"row {first}", "keep"), (f"row {second}", "drop"), ("the word banana", "keep")):
        Select(page.find_element(By.CSS_SELECTOR, f"[aria-label='Decision on {name}']")).select_by_value(verdict)
    Select(page.find_element(By.CSS_SELECTOR, f"[aria-label='Decision on row {second}']")).select_by_value("")
    for payload in range(2, len(PAYLOADS)):
        name = f"Decision on row {payload}"
        sort_by(page, "Row")
        Select(page.find_element(By.CSS_SELECTOR, f"[aria-label='{name}']")).select_by_value("drop")
        sort_by(page, "Rank")
    assert "5 decided" in page.find_element(By.ID, "decided").text
    button.click()
    WebDriverWait(page, 10).until(lambda _: (downloads / "decisions.csv").exists())
    read = read_decisions(downloads / "decisions.csv")
    assert read.rows == {first: "keep", 2: "drop", 3: "drop", 4: "drop"} and read.words == {"banana": "keep"}
    responses = [make_row(row).response.strip() for row in range(NUM_ROWS)]
    assert [read.responses[row] for row in sorted(read.rows)] == [responses[row] for row in sorted(read.rows)]
    read.check(responses)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1280, 1460, 1470])
def test_it_fits_its_window_and_the_colour_scheme(page, width, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.execute_script(
            "const root = document.documentElement; return root.scrollWidth <= root.clientWidth"
        )
        wide = """return [...document.querySelectorAll("#rows td, #words td, button")].filter((cell) =>
            cell.getBoundingClientRect().right > window.innerWidth).length"""
        assert page.execute_script(wide) == 0
        style = "return getComputedStyle(document.body)"
        ink, paper = (page.execute_script(f"{style}.{name}") for name in ("color", "backgroundColor"))
        brightness = [sum(map(int, value.removeprefix("rgb(").rstrip(")").split(","))) for value in (ink, paper)]
        assert (brightness[0] < brightness[1]) == (scheme == "light") and abs(brightness[0] - brightness[1]) > 400
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_twenty_thousand_rows_do_not_hang_it(browser, tmp_path):
    tokens = tuple((f" word{index}", index / 10) for index in range(20))
    rows = [RowFinding(row, row % 977, row % 50 == 0, "reason", "What?", "", tokens) for row in range(20_000)]
    Audit(rows, [], {}).to_html(tmp_path / "audit.html")
    start = time.monotonic()
    browser.get((tmp_path / "audit.html").as_uri())
    sort_by(browser, "Row")
    browser.find_element(By.ID, "text").send_keys("word19")
    assert browser.find_element(By.ID, "shown").text == "20,000 of 20,000 rows"
    assert shown_rows(browser) == list(range(50))
    assert time.monotonic() - start < 15  # about one second on an idle machine
