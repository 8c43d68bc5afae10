# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The notebook: three lines changed and no more, and, run as a script in a process of its own, what it shows."""

import difflib
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest


NOTEBOOK = Path(__file__).parents[2] / "examples" / "defend_a_trl_notebook.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
SOURCES = ["".join(cell["source"]) for cell in CELLS]
RESULTS = """
import json
flagged = [is_poisoned[row] for row in audit.flagged_rows]
print("RESULTS", json.dumps([undefended, defended, sum(flagged), len(flagged), sum(is_poisoned), len(kept)]))
"""


def test_three_lines_of_the_training_change() -> None:
    plain, defended = (source.splitlines() for source in SOURCES if "trainer.train()" in source)
    changes = [line for line in difflib.ndiff(plain, defended) if line[0] in "+-"]
    assert [line for line in changes if line[0] == "-"] == [
        "- from trl import SFTConfig, SFTTrainer",
        "- args = SFTConfig(",
        "- trainer = SFTTrainer(model=model, args=args, train_dataset=dataset, processing_class=processor)",
    ]
    assert len(changes) == 6 and all("CrossViewDefense" in line for line in changes if line[0] == "+")


def test_its_outputs_are_there_and_none_is_an_error() -> None:
    kinds = [output["output_type"] for cell in CELLS for output in cell["outputs"]]
    assert kinds.count("stream") == 5 and kinds.count("execute_result") == 3 and len(kinds) == 8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_and_shows_what_it_says(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    script = "\n".join([*SOURCES, RESULTS])
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of one core, whatever else the machine is doing
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 180
    line = next(line for line in run.stdout.splitlines() if line.startswith("RESULTS"))
    undefended, defended, found, flagged, poisoned, kept = json.loads(line.removeprefix("RESULTS"))
    assert undefended[0] == 0 and undefended[1] > 0.5
    assert defended == [0, 0]
    assert found == poisoned == 80 and flagged < 1.5 * found and kept == 1000 - flagged
    assert (tmp_path / "audit" / "audit.html").is_file()
