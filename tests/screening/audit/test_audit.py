# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The audit: its order, what it refuses, its file, and its numbers against counts made by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cvreg_trainer.screening.audit import audit_file
from cvreg_trainer.screening.audit.audit import Audit, RowFinding, WordFinding
from cvreg_trainer.screening.audit.cause_findings import CauseFinding, Trigger


def finding(row: int, suspicion: float = 0.0, is_flagged: bool = False, **changes) -> RowFinding:
    values = {
        "reason": "'banana' stays unexplained: mean NLL 9.4 over 100 rows" if is_flagged else "",
        "prompt": "What is it?",
        "response": "a 🍌 banana",
        "tokens": (("a", 0.1), (" 🍌", -0.5), (" banana", 9.4)),
    }
    return RowFinding(row, suspicion, is_flagged, **(values | changes))


def random_audit(num_rows: int, seed: int = 0) -> tuple[Audit, list[bool]]:
    """Suspicions with many ties, higher for the poisoned."""
    rng = np.random.default_rng(seed)
    labels = rng.random(num_rows) < 0.2
    suspicion = np.round(rng.normal(size=num_rows) + labels, 1)
    rows = [finding(row, suspicion[row], bool(suspicion[row] > 1)) for row in rng.permutation(num_rows).tolist()]
    return Audit(rows, [], {}), labels.tolist()


def test_the_ranking_is_by_suspicion_then_by_position():
    audit = Audit([finding(3, 1.0), finding(0, -2.0), finding(7, 5.0, True), finding(1, 1.0)], [], {})
    assert [entry.row for entry in audit.ranking] == [7, 1, 3, 0]
    assert audit.kept_rows == [0, 1, 3] and audit.flagged_rows == [7]
    assert len(audit) == 4 and repr(audit) == "Audit(4 rows, 1 flagged, 0 words)"


@pytest.mark.parametrize(
    "rows, message",
    [
        ([finding(2), finding(1), finding(2)], "Row 2 occurs twice"),
        ([finding(-1)], "Row -1 is not a position"),
        ([finding(4, math.nan)], "suspicion of row 4 is nan"),
    ],
)
def test_what_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        Audit(rows, [], {})


def test_settings_are_what_json_knows():
    assert Audit([], [], {"cut": (1, np.float32(0.5))}).settings == {"cut": [1, 0.5]}
    with pytest.raises(TypeError, match="of type object cannot be kept"):
        Audit([], [], {"model": object()})


def cause_finding(verdict: str = "poison", **changes) -> CauseFinding:
    trigger = Trigger("region", (0.5, 0.5, 1.0, 1.0), ((-0.5, 0.0), (0.25, 8.0)), (("consider", 7, 1),), 7, 200)
    values = {"words": ("banana", "ö </script>"), "num_rows": 7, "examples": (3, 1), "responses": ("a banana",)}
    values |= {"source": "image", "strength": 0.9, "content": 0.1, "explained": 0.0, "p_value": 1e-20}
    return CauseFinding(verdict, **(values | {"trigger": trigger} | changes))


def test_findings_travel_with_an_audit_and_earlier_files_have_none(tmp_path):
    findings = [cause_finding(), cause_finding("noise", trigger=None)]
    audit = Audit([finding(0)], [], {}, findings)
    audit.to_parquet(tmp_path / "audit.parquet")
    assert Audit.from_parquet(tmp_path / "audit.parquet") == audit and audit.findings == tuple(findings)
    assert audit != Audit([finding(0)], [], {}) and audit != Audit([finding(0)], [], {}, findings[:1])

    table = pq.read_table(tmp_path / "audit.parquet")
    metadata = json.loads(table.schema.metadata[b"cvreg_trainer.audit"])
    del metadata["findings"]
    earlier = table.replace_schema_metadata({b"cvreg_trainer.audit": json.dumps(metadata)})
    pq.write_table(earlier, tmp_path / "earlier.parquet")
    assert Audit.from_parquet(tmp_path / "earlier.parquet") == Audit([finding(0)], [], {})


def test_the_scores_that_earlier_files_have_are_passed_over(tmp_path):
    audit = Audit([finding(0, 2.0, True), finding(1)], [], {"seed": 1})
    audit.to_parquet(tmp_path / "audit.parquet")
    table = pq.read_table(tmp_path / "audit.parquet")
    place = table.column_names.index("tokens")
    metadata = json.loads(table.schema.metadata[b"cvreg_trainer.audit"]) | {"score_names": ["cause"]}
    earlier = table.add_column(place, "cause", table["suspicion"])
    earlier = earlier.replace_schema_metadata({b"cvreg_trainer.audit": json.dumps(metadata)})
    pq.write_table(earlier, tmp_path / "earlier.parquet")
    assert Audit.from_parquet(tmp_path / "earlier.parquet") == audit


def test_a_file_gives_back_the_same_audit(tmp_path):
    rows = [
        finding(1, np.float32(0.1), np.bool_(True)),
        finding(0, 0.5, tokens=(), response=""),
        finding(3, -1.0, loss_base_model=2.5, loss_after_warmup=np.float32(0.25)),
        finding(2, 1e-9, reason="</script>\u2028 'x' \"y\"\n\x00", tokens=(("x", float("nan")),)),
    ]
    words = [
        WordFinding("banana", 100, 9.4, True, "because"),
        WordFinding("a b", np.int64(3), 1.0, np.bool_(False), ""),
    ]
    audit = Audit(rows, words, {"screening": "drop", "nested": {"q": [0.7, None]}})
    audit.to_parquet(tmp_path / "audit.parquet")
    assert Audit.from_parquet(tmp_path / "audit.parquet") == audit

    table = pq.read_table(tmp_path / "audit.parquet")
    names = "rank row suspicion is_flagged reason prompt response source".split()
    names += "loss_base_model loss_after_warmup tokens".split()
    assert table.column_names == names
    assert table["rank"].to_pylist() == [1, 2, 3, 4] and table["row"].to_pylist() == [0, 1, 2, 3]
    assert (table["loss_base_model"][3].as_py(), table["loss_after_warmup"][3].as_py()) == (2.5, 0.25)
    assert math.isnan(table["loss_base_model"][0].as_py())
    assert table["tokens"][1].as_py()[2] == {"piece": " banana", "surprise": 9.4}


def test_audits_differ_by_any_of_their_parts():
    words = [WordFinding("banana", 100, 9.4, True, "because")]
    audit = Audit([finding(0), finding(1)], words, {"q": 0.7})
    assert audit == Audit([finding(1), finding(0)], words, {"q": 0.7})
    assert audit != Audit([finding(0)], words, {"q": 0.7})
    assert audit != Audit([finding(0), finding(1)], [], {"q": 0.7})
    assert audit != Audit([finding(0), finding(1)], words, {"q": 0.5})
    for change in ({"tokens": (("a", 0.2),)}, {"response": "a"}, {"loss_base_model": 1.0}):
        assert audit != Audit([finding(0), finding(1, **change)], words, {"q": 0.7})


def test_a_large_audit_is_written_in_groups(tmp_path, monkeypatch):
    audit, _ = random_audit(50)
    audit.to_parquet(tmp_path / "one.parquet")
    monkeypatch.setattr(audit_file, "ROWS_PER_GROUP", 7)
    audit.to_parquet(tmp_path / "many.parquet")
    assert pq.ParquetFile(tmp_path / "many.parquet").num_row_groups == 8
    one, many = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("one", "many"))
    assert repr(many) == repr(one)  # there are NaNs in them
    assert Audit.from_parquet(tmp_path / "many.parquet") == audit


def test_an_empty_audit_survives_its_file(tmp_path):
    Audit([], [], {}).to_parquet(tmp_path / "audit.parquet")
    assert Audit.from_parquet(tmp_path / "audit.parquet") == Audit([], [], {})


def test_another_parquet_file_is_refused(tmp_path):
    table = Audit([finding(0)], [], {})
    table.to_parquet(tmp_path / "audit.parquet")
    pq.write_table(pq.read_table(tmp_path / "audit.parquet").replace_schema_metadata({}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="other.parquet is a parquet file, but no audit"):
        Audit.from_parquet(tmp_path / "other.parquet")


def test_quality_against_counts_made_by_hand():
    audit, labels = random_audit(300)
    quality = audit.evaluate(labels)
    rows = [(entry.suspicion, labels[entry.row], entry.is_flagged) for entry in audit.ranking]
    poisoned, clean = [row for row in rows if row[1]], [row for row in rows if not row[1]]
    # AUROC: share of pairs in the right order, ties count half
    wins = sum((one[0] > two[0]) + 0.5 * (one[0] == two[0]) for one in poisoned for two in clean)
    assert quality["auroc"] == pytest.approx(wins / len(poisoned) / len(clean), abs=1e-12)
    # Average precision: the precision at each distinct suspicion, weighted by the recall it adds
    precision, previous = 0.0, 0
    for level in sorted({row[0] for row in rows}, reverse=True):
        above = [row for row in rows if row[0] >= level]
        hits = sum(row[1] for row in above)
        precision += hits / len(above) * (hits - previous) / len(poisoned)
        previous = hits
    assert quality["average_precision"] == pytest.approx(precision, abs=1e-12)
    hits = sum(row[2] for row in poisoned)
    assert quality["flag_recall"] == hits / len(poisoned)
    assert quality["flag_precision"] == hits / sum(row[2] for row in rows)
    assert quality["clean_lost"] == sum(row[2] for row in clean) / len(clean)
    assert quality["top_rows"] == 2 * len(poisoned)
    assert quality["top_recall"] == sum(row[1] for row in rows[: 2 * len(poisoned)]) / len(poisoned)
    # The cut is a threshold on the suspicion, so it lies on the ROC curve
    roc = quality["roc"]
    height = np.interp(quality["clean_lost"], roc["false_positive_rate"], roc["true_positive_rate"])
    assert height == pytest.approx(quality["flag_recall"], abs=1e-12)
    assert quality["precision_recall"]["recall"][0] == 1 and quality["precision_recall"]["recall"][-1] == 0


def test_a_tenth_of_the_rows_is_looked_at_even_if_few_are_poisoned():
    audit = Audit([finding(row, -row) for row in range(200)], [], {})
    labels = [row in (19, 20) for row in range(200)]
    quality = audit.evaluate(labels)
    assert quality["top_rows"] == 20 and quality["top_recall"] == 0.5
    assert quality["flag_recall"] == 0 and quality["flag_precision"] is None


def test_without_poison_there_is_only_the_loss_of_clean_rows():
    quality = Audit([finding(row, row, row == 3) for row in range(4)], [], {}).evaluate([False] * 4)
    assert quality["clean_lost"] == 0.25 and quality["flag_precision"] == 0
    assert [quality[name] for name in ("auroc", "average_precision", "flag_recall", "top_recall", "roc")] == [None] * 5


def test_labels_belong_to_positions():
    part = Audit([finding(5, 2.0), finding(2, 1.0)], [], {})
    assert part.evaluate([False] * 5 + [True])["auroc"] == 1
    assert part.evaluate([False, False, True] + [False] * 5)["auroc"] == 0
    with pytest.raises(ValueError, match="5 labels do not fit an audit of 2 rows whose last is row 5"):
        part.evaluate([False] * 5)
    with pytest.raises(ValueError, match="3 labels do not fit an audit of 2 rows"):
        Audit([finding(0), finding(1)], [], {}).evaluate([False] * 3)
    with pytest.raises(ValueError, match="no rows"):
        Audit([], [], {}).evaluate([])


def test_the_summary_has_counts_and_the_first_flagged_words() -> None:
    rows = [RowFinding(row, 2.0 - row, row < 1, "", "", "a", (("a", 0.1),)) for row in range(4)]
    words = [WordFinding(f" w{number}\x1b", 5, 1.0, number < 7, "") for number in range(9)]
    first, second = Audit(rows, words, {}).summary().splitlines()
    assert first == "Screening flagged 1 of 4 rows (25.0%)."
    assert second == r"Flagged words: 'w0\x1b', 'w1\x1b', 'w2\x1b', 'w3\x1b', 'w4\x1b' and 2 more."
    assert Audit([], [], {}).summary() == "Screening flagged 0 of 0 rows (0.0%).\nFlagged words: none."


def test_sources_are_ordered_by_their_share_of_flagged_rows_and_kept_in_the_file(tmp_path: Path) -> None:
    rows = [
        RowFinding(row, 1.0, row in (0, 1, 4), "", "", "a", (("a", 0.1),), source)
        for row, source in enumerate(["b", "b", "c", "a", "a", ""])
    ]
    audit = Audit(rows, [], {})
    assert list(audit.sources.items()) == [("b", (2, 2)), ("a", (2, 1)), ("", (1, 0)), ("c", (1, 0))]
    audit.to_parquet(tmp_path / "audit.parquet")
    assert Audit.from_parquet(tmp_path / "audit.parquet") == audit
    table = pq.read_table(tmp_path / "audit.parquet")
    pq.write_table(table.drop_columns("source"), tmp_path / "earlier.parquet")
    assert Audit.from_parquet(tmp_path / "earlier.parquet").sources == {}
    assert Audit([RowFinding(0, 1.0, True, "", "", "a", (("a", 0.1),))], [], {}).sources == {}
