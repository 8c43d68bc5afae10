# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A trainer's user installs no laboratory, and whoever needs one is told how to get it."""

import subprocess
import sys

import pytest

from cvreg_trainer.extras import from_extra


HIDDEN = ("evaluate", "matplotlib", "regex", "rich", "sacrebleu", "sklearn")


def without_extras(code: str) -> subprocess.CompletedProcess[str]:
    """Run code as where the packages of the extras are not installed."""
    # transformers brings regex; it is hidden from this package only by the others
    hide = f"import sys; sys.modules.update(dict.fromkeys({[name for name in HIDDEN if name != 'regex']!r}))\n"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True)


def test_training_and_its_audit_need_no_extra() -> None:
    run = without_extras(
        "from cvreg_trainer import Audit, CrossViewDefenseConfig, CrossViewDefenseTrainer, open_dataset\n"
        "import cvreg_trainer.screening.audit.page"
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("code", "name", "extra"),
    [
        ("from cvreg_trainer import Cider", "evaluate", "lab"),
        ("from cvreg_trainer.report import results_table", "rich", "report"),
    ],
)
def test_what_is_missing_is_named_with_the_remedy(code: str, name: str, extra: str) -> None:
    run = without_extras(code)
    assert run.returncode == 1
    assert f"The package '{name}' is not installed. Install cvreg-trainer with its extra `{extra}`" in run.stderr


def test_the_command_line_says_it_in_a_line() -> None:
    run = without_extras(
        "from cvreg_trainer.cli import main\n"
        "sys.exit(main(['audit', '--model', 'a', '--data', 'b', '--output_dir', 'c']))"
    )
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert run.stderr.strip().endswith('`pip install ".[all]"` in a checkout.')


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(ModuleNotFoundError, match="cvreg_trainer.nothing"), from_extra("lab"):
        import cvreg_trainer.nothing  # noqa: F401
