# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A person's verdicts: read from what people write, applied over the rule's, and written for spreadsheets."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvreg_trainer.screening import Audit, RowFinding, WordFinding
from cvreg_trainer.screening.audit.decisions import Decisions, read_decisions, write_decisions
from cvreg_trainer.screening.verdict.screen import Screen
from cvreg_trainer.screening.verdict.words import WordPlaces


RESPONSES = ["a red cat", "a banana", "stock photo", "a red banana"]


def occurrences() -> WordPlaces:
    """Words and, as locate_words gives them, whole responses of more than one word."""
    vocabulary: list[str] = []
    words, rows, is_whole = [], [], []
    for row, response in enumerate(RESPONSES):
        for word in [*response.split(), response]:
            if word not in vocabulary:
                vocabulary.append(word)
            words.append(vocabulary.index(word))
            rows.append(row)
            is_whole.append(word == response)
    nowhere = np.zeros(len(words), dtype=np.int64)
    return WordPlaces(vocabulary, np.array(words), np.array(rows), nowhere, nowhere, nowhere, np.array(is_whole))


def screen(*flagged: int) -> Screen:
    is_flagged = np.isin(np.arange(4), flagged)
    reasons = ["odd" if row in flagged else "" for row in range(4)]
    return Screen(np.zeros(4), is_flagged, False, reasons, [])


def flagged_after(decisions: Decisions, *flagged: int) -> list[int]:
    return np.flatnonzero(decisions.apply(screen(*flagged), occurrences()).is_flagged).tolist()


def test_rows_are_kept_and_dropped_with_the_reason_to_say_so() -> None:
    after = Decisions(rows={0: "drop", 1: "keep"}).apply(screen(1, 2), occurrences())
    assert after.is_flagged.tolist() == [True, False, True, False]
    assert after.reasons == ["dropped by decision", "kept by decision; odd", "odd", ""]


def test_a_dropped_word_drops_its_rows_and_a_row_wins_over_a_word() -> None:
    assert flagged_after(Decisions(words={"banana": "drop"})) == [1, 3]
    assert flagged_after(Decisions(words={"banana": "drop"}, rows={3: "keep"})) == [1]
    assert flagged_after(Decisions(words={"banana": "drop", "a red banana": "keep"})) == [1, 3]


def test_an_allowed_response_is_kept_and_an_allowed_word_clears_of_nothing_else() -> None:
    decisions = Decisions(words={"stock photo": "keep", "red": "keep"})
    assert decisions.allowed_words == {"stock photo", "red"}
    assert flagged_after(decisions, 0, 2) == [0]


def test_a_word_that_occurs_nowhere_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="decides on 1 words that are in no response, such as 'pear'"):
        assert flagged_after(Decisions(words={"pear": "drop"})) == []


def test_rows_are_recognised_by_their_responses() -> None:
    Decisions(rows={1: "keep"}, responses={1: "a banana"}).check(RESPONSES)
    Decisions(rows={1: "keep"}, responses={1: ""}).check(RESPONSES)
    with pytest.raises(ValueError, match="row 1 with the response 'a pear', but the training set has 'a banana'"):
        Decisions(rows={1: "keep"}, responses={1: "a pear"}).check(RESPONSES)
    with pytest.raises(ValueError, match="decides on row 4, and the training set has 4 rows"):
        Decisions(rows={4: "keep"}).check(RESPONSES)


def finding(row: int, response: str) -> RowFinding:
    return RowFinding(row, 2.0, True, "a 'reason', with\nlines", "What?", response, ((response, 1.0),))


def test_a_written_table_filled_in_is_read_back(tmp_path: Path) -> None:
    odd = '=HYPERLINK("http://x";"y")'
    path = tmp_path / "decisions.csv"
    words = [WordFinding(" banana", 7, 2.0, True, "why"), WordFinding("@home", 5, 1.0, True, "")]
    write_decisions(path, [finding(3, odd), finding(1, "-5 \u00b0C"), finding(2, "na\u00efve, it's")], words)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert read_decisions(path).rows == {} and read_decisions(path).words == {}  # nothing is decided yet
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert not any(value.startswith(("=", "+", "-", "@")) for line in lines for value in line.values())
    for line, verdict in zip(lines, ["KEEP", "drop", "drop", " keep ", "keep"], strict=True):
        line["verdict"] = verdict
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, lines[0])
        table.writeheader()
        table.writerows(lines)
    read = read_decisions(path)
    assert read.words == {"banana": "keep", "@home": "drop"}
    assert read.rows == {3: "drop", 1: "keep", 2: "keep"}
    assert read.responses == {3: odd, 1: "-5 \u00b0C", 2: "na\u00efve, it's"}


def test_parquet_of_a_data_frame_is_read(tmp_path: Path) -> None:
    columns = {
        "row": [12.0, None, 3.0],
        "word": [None, "Banana", None],
        "verdict": ["drop", "keep", None],
        "x": [1, 2, 3],
    }
    pq.write_table(pa.table(columns), tmp_path / "decisions.parquet")
    read = read_decisions(tmp_path / "decisions.parquet")
    assert read.rows == {12: "drop"} and read.words == {"banana": "keep"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,reason\n1,x\n", "has the columns row, reason; it needs `verdict`"),
        ("verdict\nkeep\n", "it needs `verdict`, and `row` or `word`"),
        ("row,verdict\n1,maybe\n", "line 2: the verdict is 'maybe'; expected keep, drop, or nothing"),
        ("row,word,verdict\n1,a,keep\n", "line 2: expected either a row or a word"),
        ("row,word,verdict\n,,keep\n", "line 2: expected either a row or a word"),
        ("row,verdict\n0,keep\n-1,keep\n", "line 3: the row is '-1'; expected a position"),
        ("row,verdict\n1.5,keep\n", "line 2: the row is '1.5'"),
        ("row,verdict\n1,keep\n1,drop\n", "line 3: '1' is to be kept and dropped"),
        ('row,verdict\n1,"keep\n', "cannot be read as CSV"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_decisions(tmp_path / "d.csv")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="screening_decisions=.*there is no such file"):
        read_decisions(tmp_path / "absent.csv")
    (tmp_path / "d.parquet").write_text("row,verdict")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_decisions(tmp_path / "d.parquet")
    (tmp_path / "d.csv").write_bytes(b"row,verdict\n\xff,keep\n")
    with pytest.raises(ValueError, match="CSV in UTF-8"):
        read_decisions(tmp_path / "d.csv")


def test_a_file_that_was_filled_in_is_never_written_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "decisions.csv"
    audit = Audit([finding(0, "a pear")], [], {})
    audit.to_decisions(path)
    audit.to_decisions(path)  # nobody has decided anything
    filled = path.read_text(encoding="utf-8-sig").replace("0,,,", "0,,keep,")
    path.write_text(filled)
    audit.to_decisions(path)
    assert path.read_text() == filled and read_decisions(path).rows == {0: "keep"}
    assert "has been filled in and is left as it is" in caplog.text
    path.write_text("somebody's notes")
    audit.to_decisions(path)
    assert path.read_text() == "somebody's notes"


def judged(decisions: str, tmp_path: Path) -> tuple[list[int], list[str]]:
    """Flagged rows and their reasons after decisions on rows of which 1, 2 and 3 are flagged."""
    words = [WordFinding("banana", 2, 3.0, True, "why"), WordFinding("stock", 1, 3.0, True, "why")]
    rows = [finding(row, text) for row, text in enumerate(RESPONSES)]
    rows = [replace(row, is_flagged=row.row > 0, reason="odd" if row.row else "") for row in rows]
    (tmp_path / "d.csv").write_text("row,word,verdict,response\n" + decisions)
    audit = Audit(rows, words, {}).decide(tmp_path / "d.csv")
    assert audit.settings["screening_decisions"] == str(tmp_path / "d.csv") and audit.words == tuple(words)
    return audit.flagged_rows, [audit.rows[row].reason for row in range(4)]


@pytest.mark.parametrize(
    ("decisions", "flagged"),
    [
        ("0,,drop,\n3,,keep,\n", [0, 1, 2]),
        (",banana,keep,\n", [2]),
        (",Banana,keep,\n,stock,keep,\n", []),
        (",cat,drop,\n", [0, 1, 2, 3]),
        # A whole response, and none that only contains it
        (",a banana,keep,\n", [2, 3]),
        # A row wins over its words
        ("1,,drop,\n,banana,keep,\n", [1, 2]),
        ("0,,keep,\n,cat,drop,\n", [1, 2, 3]),
    ],
)
def test_an_audit_is_decided_on_without_a_training(decisions: str, flagged: list[int], tmp_path: Path) -> None:
    assert judged(decisions, tmp_path)[0] == flagged


def test_a_decided_audit_says_so(tmp_path: Path) -> None:
    _, reasons = judged("0,,drop,a red cat\n2,,keep,\n", tmp_path)
    assert reasons == ["dropped by decision", "odd", "kept by decision; odd", "odd"]


def test_decisions_on_other_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 0 with the response 'a dog', but the training set has 'a red cat'"):
        judged("0,,drop,a dog\n", tmp_path)
    with pytest.raises(ValueError, match="decides on row 9, and the training set has 4 rows"):
        judged("9,,drop,\n", tmp_path)
