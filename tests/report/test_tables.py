# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The results table: every number in its column, nothing cut off at 80 characters."""

from rich.console import Console

from cvreg_trainer.report import results_table


RUN = {
    "name": "undefended",
    "clean_bleu4": 61.94,
    "clean_cider": 233.21,
    "triggered_bleu4": 5.04,
    "triggered_cider": 12.5,
    "asr": 100.0,
    "false_alarm_rate": 0.5,
    "seconds_per_step": 0.0612,
    "peak_memory_mib": 1634.4,
}


def test_fits_into_80_characters() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(results_table([RUN, {"name": "defended", "asr": 3.0}], title="Results"))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if "undefended" in line)
    assert row.split() == ["undefended", "61.9", "233.2", "5.0", "12.5", "100.0", "0.5", "0.061", "1634"]
    assert next(line for line in lines if line.strip().startswith("defended")).split() == ["defended", "3.0"]
