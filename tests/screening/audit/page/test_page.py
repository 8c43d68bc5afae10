# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The audit page as a file: one piece, nothing fetched, nothing of the data in its markup, honest about its limits."""

import base64
import hashlib
import io
import json
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from cvreg_trainer.pages import json_for_html
from cvreg_trainer.screening.audit.audit import Audit, RowFinding, WordFinding
from cvreg_trainer.screening.audit.cause_findings import CauseFinding, Trigger
from cvreg_trainer.screening.audit.page import page as audit_page
from cvreg_trainer.screening.audit.page.charts import HALF_HEIGHT, SIDE, WIDTH, curve, histogram
from cvreg_trainer.screening.audit.page.thumbnails import make_thumbnails, mean_picture


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- \u2028 & \ud800"


class Parser(HTMLParser):
    """Elements with their attributes, and the texts of script and style elements."""

    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.cdata_elem is not None:  # inside a script or a style
            self.texts[self.cdata_elem].append(data)


def make_audit(num_rows: int = 6) -> Audit:
    rows = [
        RowFinding(row, -float(row), row < 2, f"reason {row}", "prompt", "a cat", (("a", 0.0), (" cat", 1.0)))
        for row in range(num_rows)
    ]
    return Audit(rows, [WordFinding("cat", num_rows, 3.0, True, "why")], {"q": 0.7})


def make_finding(verdict: str = "poison", trigger: Trigger | None = None, text: str = "banana") -> CauseFinding:
    numbers = 0.9, -0.1, 0.25, 1e-30
    return CauseFinding(verdict, (text,), 1200, (4, 2, 3), (text, "a cat"), "image", *numbers, trigger)


def write(audit: Audit, path, **options) -> tuple[str, Parser, dict]:
    audit.to_html(path, **options)
    text = path.read_text(encoding="utf-8")
    parser = Parser()
    parser.feed(text)
    return text, parser, json.loads(parser.texts["script"][0])


def png(width: int, height: int) -> bytes:
    """A PNG file that claims a size and has hardly any pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def decoded(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_the_policy_allows_this_script_and_this_style_and_no_request(tmp_path):
    text, parser, _ = write(make_audit(), tmp_path / "audit.html", labels=[True] + [False] * 5)
    policy = next(attrs["content"] for _, attrs in parser.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    hashes = {
        kind: base64.b64encode(hashlib.sha256(parser.texts[kind][-1].encode()).digest()).decode()
        for kind in ("script", "style")
    }
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for kind, value in hashes.items():
        assert re.search(rf"{kind}-src ([^;]*);", policy)[1] == f"'sha256-{value}'"
    scripts = [attrs for tag, attrs in parser.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    # No attribute names a place elsewhere, runs code or carries a style of its own
    for _, attrs in parser.tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "style", "action")]
        assert attrs.get("href") in (None, "data:,")
    style = parser.texts["style"][0]
    assert "innerHTML" not in text and "@import" not in style and "url(" not in style


def test_what_comes_from_the_data_is_in_the_json_alone(tmp_path):
    tokens = ((HOSTILE, 9.0), (" end", 0.0))
    rows = [RowFinding(row, 1.0, True, HOSTILE, HOSTILE, HOSTILE, tokens) for row in range(3)]
    trigger = Trigger("question", words=((HOSTILE, 1, 0),))
    findings = [make_finding(trigger=trigger, text=HOSTILE), make_finding("noise", text=HOSTILE)]
    audit = Audit(rows, [WordFinding(HOSTILE, 1, 1.0, True, HOSTILE)], {"key": HOSTILE}, findings)
    text, parser, data = write(audit, tmp_path / "audit.html", title=HOSTILE)
    assert len([tag for tag, _ in parser.tags if tag == "script"]) == 2
    assert not [tag for tag, _ in parser.tags if tag == "img"]
    assert "alert(1)</script>" not in text and "<!--" not in text and "\u2028" not in parser.texts["script"][0]
    shown = HOSTILE.replace("\ud800", "?")  # half of a character cannot be written
    assert data["rows"][0][3:5] == [shown, shown] and data["words"][0][0] == shown
    assert data["settings"] == [["key", shown]]
    assert data["findings"][0]["words"] == [shown] and data["findings"][0]["trigger"]["words"] == [[shown, 1, 0]]


def test_findings_have_pictures_of_their_own_rows_and_numbers_to_read(tmp_path):
    grid = ((float("nan"), -2.0), (0.5, 4.0))
    found = make_finding(trigger=Trigger("region", (0.5, 0.5, 1.0, 1.0), grid, (), 3, 200))
    audit = Audit(make_audit().rows, [], {}, [found, make_finding("content")])
    rows = [{"image": Image.new("RGB", (20 + row, 10), (40 * row, 0, 0))} for row in range(6)]
    rows[2] = {"image": Image.new("L", (1, 1))}
    text, _, data = write(audit, tmp_path / "audit.html", dataset=rows)
    shown, kept = data["findings"]
    assert [entry[0] for entry in shown["pictures"]] == [4, 2, 3]
    assert decoded(shown["pictures"][0][1]).getpixel((5, 5))[0] == pytest.approx(160, abs=3)
    mean = decoded(shown["mean"])
    assert mean.size == (96, 96) and mean.getpixel((50, 50))[0] == pytest.approx((160 + 0 + 120) / 3, abs=3)
    assert shown["trigger"]["map"] == [[0.0, 0.0], [0.5, 4.0]] and shown["trigger"]["peak"] == 4
    assert dict(shown["numbers"]) == {
        "Rows": "1,200",
        "Best predicted by": "the images",
        "Correlation, out of fold": "0.90",
        "Correlation with content": "0.00",
        "Explained by the right image": "25%",
        "p-value, adjusted": "below 1e-12",
    }
    assert kept["pictures"] == [] and kept["mean"] is None and kept["trigger"] is None
    assert "1 group that images do not explain, and that is kept" in text
    # No data set, no pictures; no findings, no section
    assert write(audit, tmp_path / "audit.html")[2]["findings"][0]["pictures"] == []
    assert "findings-heading" not in write(make_audit(), tmp_path / "audit.html")[0]


def test_the_mean_picture_leaves_out_what_cannot_be_read():
    rows = [{"image": Image.new("RGB", (9, 9), (200, 0, 0))}, {}, {"image": "/no/such/file.png"}]
    assert decoded(mean_picture(rows, [0, 1, 2])).getpixel((9, 9))[0] == pytest.approx(200, abs=3)
    assert mean_picture(rows, [1, 2]) is None and mean_picture(rows, []) is None


def test_json_that_stands_in_a_script_element():
    value = {"</script>": ["<!--", "]]>", "&amp;", "\u2028\u2029", "ä🍌", None, 1.5]}
    text = json_for_html(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_surprising_pieces_are_marked_by_strength(tmp_path):
    plain = [RowFinding(row, 0.0, False, "", "p", "x", tuple(("x", 0.0) for _ in range(10))) for row in range(20)]
    nats = np.linspace(2, 8, 10).tolist()
    pieces = (("ein", 0.0), *((f" w{i}", value) for i, value in enumerate(nats)), (" ", 9.0), (".", float("nan")))
    marked = RowFinding(20, 1.0, True, "", "p", "ignored", pieces)
    bare = RowFinding(21, -1.0, False, "", "p", "no pieces", ())
    _, _, data = write(Audit([*plain, marked, bare], [], {}), tmp_path / "audit.html")
    segments = data["rows"][0][5]
    assert "".join(part if isinstance(part, str) else part[0] for part in segments) == "".join(p for p, _ in pieces)
    marks = [part for part in segments if not isinstance(part, str)]
    assert [mark[0] for mark in marks] == [f"w{i}" for i in range(10)]  # without the space before them
    assert [mark[1] for mark in marks] == pytest.approx(nats, rel=1e-4)
    levels = [mark[2] for mark in marks]
    assert levels == sorted(levels) and levels[0] == 1 and levels[-1] == 4
    assert data["rows"][1][5] == ["x" * 10] and data["rows"][-1][5] == ["no pieces"]


def test_kept_rows_are_all_there_even_where_the_table_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_page, "MAX_LISTED", 4)
    rows = [RowFinding(row, -row, row in (0, 1, 5), "", "", "", ()) for row in range(10) if row != 7]
    text, _, data = write(Audit(rows, [], {}), tmp_path / "audit.html")
    assert [row[0] for row in data["rows"]] == [0, 1, 2, 3]
    assert data["kept"] == [[2, 4], [6, 6], [8, 9]]
    assert "The table lists the 4 most suspicious of 9 rows." in text


def test_thumbnails_of_stored_images_and_what_stands_in_for_the_others(tmp_path):
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((6, 6, 1))).astype(np.uint8))
    turned = Image.new("RGB", (400, 200), "navy")
    turned.getexif()[0x0112] = 6  # a camera held upright
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=turned.getexif())
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    files = [encoded(pixels), buffer.getvalue(), png(9000, 9000), png(60000, 60000), encoded(pixels)[:200], postscript]
    rows = [[{"bytes": file, "path": None}] for file in files]
    rows += [[{"bytes": None, "path": str(tmp_path / "gone.png")}], [], [rows[0][0]] * 3]
    dataset = Dataset.from_dict({"images": rows}, features=Features({"images": List(ImageFeature())}))
    made = list(make_thumbnails(dataset, range(9)))
    assert np.abs(np.asarray(decoded(made[0].uri), dtype=int) - np.asarray(pixels)).mean() < 6
    assert decoded(made[1].uri).size == (64, 128)
    assert [(entry.uri, entry.remark) for entry in made[2:8]] == [
        (None, "too large to be drawn: 9000 x 9000"),
        (None, "too large to be drawn"),
        (None, "cannot be read: OSError"),
        (None, "cannot be read: UnidentifiedImageError"),
        (None, "its file is not here"),
        (None, "no image"),
    ]
    assert made[8].uri == made[0].uri and made[8].remark == "and 2 more"
    # Positions are those of the data set as it was audited, whatever its format
    chosen = dataset.select([5, 1]).with_format("numpy")
    assert [entry.uri for entry in make_thumbnails(chosen, [1, 0])] == [made[1].uri, None]


def test_thumbnails_of_images_anywhere_in_a_row():
    image = Image.new("RGBA", (300, 100), (255, 0, 0, 255))
    rows = [
        {"messages": [{"role": "user", "content": [{"type": "image", "image": image}]}]},
        {"image": np.full((4, 6), 200, dtype=np.uint8)},
        {"text": "none"},
    ]
    one, two, three = make_thumbnails(rows, [0, 1, 2])
    assert decoded(one.uri).size == (128, 43) and decoded(two.uri).size == (6, 4)
    assert three.uri is None and three.remark == "no image"
    table = Dataset.from_dict({"image": ["a"]}, features=Features({"image": Value("string")}))
    assert next(make_thumbnails(table, [0])).remark == "cannot be read"  # there is no file of this name


def test_only_the_first_of_the_ranking_have_images(tmp_path):
    images = [Image.new("RGB", (20, 20), (40 * row, 0, 0)) for row in range(6)]
    rows = [{"images": [image]} for image in images]
    reversed_audit = Audit([RowFinding(row, float(row), False, "", "", "", ()) for row in range(6)], [], {})
    text, _, data = write(reversed_audit, tmp_path / "audit.html", dataset=rows, num_thumbnails=2)
    reds = [decoded(uri).getpixel((10, 10))[0] for uri, _ in data["thumbnails"]]
    assert reds == pytest.approx([200, 160], abs=3)
    assert "Images are embedded for the 2 most suspicious rows; the rest have none." in text
    assert "made without the data set" in write(reversed_audit, tmp_path / "none.html")[0]


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "audit.html"
    with pytest.raises(ValueError, match="has row 5, but the data set has 2 rows"):
        make_audit().to_html(path, dataset=[{}, {}])
    with pytest.raises(TypeError, match="got generator"):
        make_audit().to_html(path, dataset=(row for row in [{}] * 6))
    with pytest.raises(ValueError, match="2 labels do not fit"):
        make_audit().to_html(path, labels=[True, False])
    assert not path.exists()


@pytest.mark.parametrize("labels", [None, []])
def test_an_empty_audit_has_a_page(tmp_path, labels):
    text, _, data = write(Audit([], [], {}), tmp_path / "audit.html", labels=labels)
    assert data["rows"] == [] and "No word stands out." in text


def test_one_class_of_labels_has_numbers_but_no_curves(tmp_path):
    text, _, _ = write(make_audit(), tmp_path / "audit.html", labels=[False] * 6)
    assert "33.33 %" in text and "there are no curves" in text and "polyline" not in text


def test_a_histogram_counts_every_row_once():
    rng = np.random.default_rng(0)
    values = [*rng.normal(size=500), 1e9]
    lower = [index % 10 == 0 for index in range(len(values))]
    chart = histogram(values, lower, ("kept", "flagged"))
    counts = {side: [int(bar.text.split()[0]) for bar in chart.bars if bar.is_upper == side] for side in (True, False)}
    assert sum(counts[False]) == sum(lower) and sum(counts[True]) == 501 - sum(lower)
    # The outlier does not squeeze the others into one bar, and the axis says that it lies beyond
    assert len(counts[True]) > 8 and chart.ticks[-1][1].startswith("≥ ") and float(chart.ticks[-1][1][2:]) < 100
    for bar in chart.bars:
        assert bar.x >= 0 and bar.x + bar.width <= WIDTH and 0 < bar.height <= HALF_HEIGHT
        assert (bar.y + bar.height == pytest.approx(HALF_HEIGHT, abs=0.02)) if bar.is_upper else bar.y == HALF_HEIGHT
    for side in (True, False):
        assert max(bar.height for bar in chart.bars if bar.is_upper == side) == HALF_HEIGHT


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("values", [[1e15] * 3, [1e17] * 3, [-1e17] * 3, [-1e308, 1e308], [1.7e308] * 2, [0.5, 1e15]])
def test_histograms_of_values_beside_which_one_is_nothing(values: list[float]) -> None:
    chart = histogram(values, [False] * len(values), ("kept", "flagged"))
    counts = [int(bar.text.split()[0]) for bar in chart.bars]
    assert sum(counts) == len(values) and all(0 <= bar.x <= WIDTH for bar in chart.bars)
    low, _, high = (float(text.strip("≤≥ ")) for _, text in chart.ticks)
    assert low <= max(min(values), -1e300) and high >= min(max(values), 1e300) * (1 - 1e-12)


def test_histograms_of_a_single_value_and_of_none():
    chart = histogram([2.0, 2.0], [True, False], ("kept", "flagged"))
    assert [bar.text.split(",")[0] for bar in chart.bars] == ["1 kept", "1 flagged"]
    assert [label for _, label in chart.ticks] == ["1.5", "2", "2.5"]
    assert histogram([], [], ("kept", "flagged")).bars == []


def test_a_curve_keeps_its_ends_and_few_points():
    x = np.linspace(0, 1, 5000)
    points = [tuple(map(float, point.split(","))) for point in curve(x, x**2).split()]
    assert points[0] == (0, SIDE) and points[-1] == (SIDE, 0) and len(points) == 200
    assert curve([0, 0, 1], [0, 1, 1]) == "0.0,200.0 0.0,0.0 200.0,0.0"


@pytest.mark.parametrize(
    "settings, is_said", [({"rows_looked_at": 5}, True), ({"rows_looked_at": 6}, False), ({}, False)]
)
def test_a_page_says_how_many_rows_the_model_looked_at(settings, is_said, tmp_path):
    text, _, _ = write(Audit(make_audit(6).rows, [], settings), tmp_path / "audit.html")
    assert ("The model looked at 5 of the 6 rows" in text) == is_said


@pytest.mark.parametrize("rule, is_said", [({"enough_rows": 7}, True), ({"enough_rows": 6}, False), ({}, False)])
def test_a_page_of_too_few_rows_says_that_nothing_was_looked_for(rule, is_said, tmp_path):
    audit = Audit(make_audit(6).rows, [], {"rule": rule})
    text, _, _ = write(audit, tmp_path / "audit.html")
    assert ("Nothing was looked for: screening needs 7 rows" in text) == is_said
    assert ("None was looked for." in text) == is_said and ("No word stands out." in text) != is_said
