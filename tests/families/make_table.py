# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Measures families and writes docs/families.md: `python tests/families/make_table.py`, some minutes on one core.

With names of families as arguments only these are measured; the rest stays as the document has it.
"""

import gc
import os
import sys
from pathlib import Path


os.environ["HF_HUB_OFFLINE"] = "1"
sys.path[:0] = [str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parents[2])]

from family_checks import CHECKS  # noqa: E402
from family_table import DOCUMENT, FAMILIES, measure_family, parse, render  # noqa: E402


def main(names: list[str]) -> None:
    known = parse(DOCUMENT.read_text()) if names else {}
    results, inputs = {}, {}
    for name, build in FAMILIES.items():
        inputs[name] = build().inputs
        results[name] = known[name] if names and name not in names else measure_family(name, CHECKS)
        print(name, results[name], file=sys.stderr)
        gc.collect()  # a trainer and its patched model hold on to each other
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(render(results, inputs))


if __name__ == "__main__":
    main(sys.argv[1:])
