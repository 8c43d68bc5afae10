# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""One process of several that leave out the bad rows of a data set together."""

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import load_from_disk

from cvreg_trainer.data.skipping import skip_bad_rows


def main() -> None:
    folder, state, read = Path(sys.argv[1]), PartialState(cpu=True), set[int]()

    def note(row: dict[str, Any]) -> None:
        read.add(int(row["text"]))

    dataset = load_from_disk(folder / "rows").add_column("place", list(range(7)))
    left, skipped = skip_bad_rows(dataset, "rows", note)
    result = {"skipped": list(skipped.reasons), "left": list(left["text"]), "read": sorted(read)}
    # Broken images fail before the row is seen
    result["read"] = sorted(read | {n for n in skipped.reasons if n % state.num_processes == state.process_index})
    (folder / f"{state.process_index}.json").write_text(json.dumps(result))


main()
