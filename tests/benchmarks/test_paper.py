# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The command for the paper's tables: what it plans, which rows it takes over, and a page that leaves out no cell."""

import re
from dataclasses import asdict

import paper
import paper_cells
import paper_report
import pytest
from paper_numbers import RESULTS

from cvreg_trainer.lab.experiment import Experiment


PARTS = ["1", "2", "3", "4", "5", "figure 3"]


def row_of(settings: dict, seed: int = 0, **scores: float) -> dict:
    known = {
        "asr": 90.0,
        "false_alarm_rate": 0.0,
        "clean_cider": 400.0,
        "clean_bleu4": 70.0,
        "clean_vqa_accuracy": 80.0,
    }
    known |= {"triggered_cider": 5.0} | scores
    intervals = {f"{name}_interval": [value - 1, value + 1] for name, value in known.items()}
    return {**settings, "seed": seed, **known, **intervals}


def test_every_attack_and_defence_of_the_paper_is_planned():
    planned = list(paper_cells.plan(PARTS, 2))
    for part, (task, architecture) in {"1": ("scenes", "llava"), "3": ("easy_vqa", "llava")}.items():
        found = {(cell["attack"], cell["defence"]) for cell in paper_cells.cells(part)}
        assert {paper_cells.cell_of(cell) for cell in paper_cells.cells(part)} == {(task, architecture)}
        assert found >= set(RESULTS["OpenFlamingo", "COCO"]) and len(found) == 7 * 3
    assert [settings["seed"] for settings in planned] == [0] * (len(planned) // 2) + [1] * (len(planned) // 2)


def test_only_rows_of_the_same_experiment_are_taken_over():
    experiment = Experiment(3, attack="dual_key", cover_ratio=2.0, attack_options={"patch_fraction": 64 / 48**2})
    row = {"attack": "dual_key", "defence": "none", "config": {}, "seed": 3, "experiment": asdict(experiment)}
    assert paper.is_same_run(row)  # the settings by name and those by default are the same
    for change in ({"train_rows": 1000}, {"substitute": True}, {"cover_ratio": 0.0}, {"seed": 4}):
        assert not paper.is_same_run(row | {"experiment": asdict(experiment) | change})
    assert not paper.is_same_run(row | {"config": {"screening": "drop"}})


def test_a_rival_is_another_run_than_no_defence_and_a_name_is_not():
    [none, *_] = paper_cells.cells("1")
    rivals = [cell for cell in paper_cells.cells("5") if cell["attack"] == "badnets" and cell["task"] == "scenes"]
    keys = {paper_cells.identity(cell) for cell in rivals}
    assert len(keys) == len(rivals)
    assert paper_cells.identity(none) == paper_cells.identity(none | {"defence": "another name"})
    assert paper_cells.identity(none | {"config": {"lambda_patch": 2}}) == paper_cells.identity(
        none | {"config": {"lambda_patch": 2.0}}
    )


def test_plain_and_textured_scenes_are_told_apart():
    references = [["A ring on plain paper."], ["A ring on wavy paper."], ["A moon on striped paper."]]
    rates = paper.rates_by_background(["a banana", "a banana", "a moon"], references)
    assert (rates["plain_asr"], rates["textured_asr"], rates["plain_images"], rates["textured_images"]) == (
        100,
        50,
        1,
        2,
    )


def test_the_page_shows_every_cell_and_lists_those_that_were_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_report, "DOCS", tmp_path)
    paper_report.write_report([], seeds=2)
    empty = (tmp_path / "paper.md").read_text()
    cells = [cell for part in PARTS for cell in paper_cells.cells(part)]
    in_tables = empty.split("## Not run")[0].count("| not run |")
    background = 3 * 3  # WaNet once more, by background
    assert in_tables == len(cells) + background
    assert len(re.findall("0 of 2 seeds", empty)) == len(cells)
    badnets = [
        cell for cell in paper_cells.cells("1") if cell["attack"] == "badnets" and cell["defence"] != "screened"
    ]
    rows = [row_of(cell, seed, asr=90.0 - 10 * seed) for cell in badnets for seed in (0, 1)]
    paper_report.write_report(rows, seeds=2)
    page = (tmp_path / "paper.md").read_text()
    assert "| BadNets | none | 2 | 70.0 (69.0 to 71.0) | 400.0 (399.0 to 401.0) |" in page
    assert "| 85.0 (79.0 to 91.0) | 0.0 (-1.0 to 1.0) | yes | 2.7 / 1.5 / 98.9 |" in page
    assert (tmp_path / "images" / "paper_figure3.png").stat().st_size > 1000


def test_the_verdicts_follow_the_rows():
    cells = [*paper_cells.cells("4"), *paper_cells.cells("figure 3")]
    asr = {"none": 98.0, "patch": 66.0, "patch+discrepancy": 54.0, "paper_loss": 48.0, "lambda_discrepancy=10": 5.0}

    def verdicts(rates: dict) -> dict:
        rows = [row_of(cell, asr=rates.get(cell["defence"], 48.0)) for cell in cells]
        groups = paper_report.group({paper_cells.identity(row): row for row in rows}.values())
        return {line[0]: line[2] for line in paper_report.statements(groups, paper_report.key)}

    as_in_the_paper = verdicts(asr)
    assert as_in_the_paper["Each term that is added lowers attack success"] == "yes"
    assert as_in_the_paper["The discrepancy term acts most on attack success"] == "yes"
    assert verdicts(asr | {"patch": 99.0})["Each term that is added lowers attack success"] == "no"
    other = verdicts(asr | {"lambda_discrepancy=10": 48.0, "lambda_entropy=1": 3.0})
    assert other["The discrepancy term acts most on attack success"] == "no"


def test_an_attack_that_fires_on_clean_images_too_does_not_take_hold():
    [cell] = [cell for cell in paper_cells.cells("4") if cell["defence"] == "none"]
    assert paper_report.takes_hold([row_of(cell, asr=97.0)]) == "yes"
    assert paper_report.takes_hold([row_of(cell, asr=97.0, false_alarm_rate=60.0)]) == "**no**"


@pytest.mark.parametrize(("tables", "message"), [("6", "table 6 is unknown"), ("1,x", "table x is unknown")])
def test_an_unknown_table_is_an_error(tables, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["paper.py", "--tables", tables])
    with pytest.raises(SystemExit):
        paper.main()
    assert message in capsys.readouterr().err
