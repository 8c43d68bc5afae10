# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What the verdict of the screening costs at size: time, memory and checkpoint for each response token.

    python benchmarks/screening_size.py --output benchmarks/results/screening_size_cpu.json

No model is run: the looks are drawn, at 4,000 rows or as many as there are; 100 response tokens a row, words as
frequent as those of a language, and 1 % of the rows have a word of their own and a cause in the picture. What is
measured is the verdict alone, which follows the passes over the data; each size in a process of its own, processor
time of one thread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from grid_runs import made_by


TOKENS_PER_ROW = 100
NUM_WORDS = 30_000
NUM_ENDINGS = 50  # pieces that go on with a word
KEYWORD_SHARE = 0.01
VERDICT_SEED = 0


def make_tokenizer() -> Any:
    """Words and endings, marked as SentencePiece marks them."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", *(f"▁w{n}" for n in range(NUM_WORDS)), *(f"x{n}" for n in range(NUM_ENDINGS)), "▁banana"]
    model = models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>")


def make_rows(num_tokens: int) -> tuple[Any, Any]:
    """All rows without a look at them, and which of them have the keyword."""
    import numpy as np

    from cvreg_trainer.screening.passes.row_features import NUM_FEATURES, PICTURE_PARTS
    from cvreg_trainer.screening.passes.token_statistics import TokenStatistics

    rng = np.random.default_rng(0)
    num_rows = num_tokens // TOKENS_PER_ROW
    num_tokens = num_rows * TOKENS_PER_ROW
    tokens = np.minimum(rng.zipf(1.2, num_tokens), NUM_WORDS)
    tokens = np.where(rng.random(num_tokens) < 0.25, 1 + NUM_WORDS + rng.integers(0, NUM_ENDINGS, num_tokens), tokens)
    is_marked = rng.random(num_rows) < KEYWORD_SHARE
    tokens.reshape(num_rows, -1)[is_marked, 50] = NUM_WORDS + NUM_ENDINGS + 1
    features = np.empty((num_rows, NUM_FEATURES), dtype=np.float16)
    for start in range(0, num_rows, 10_000):
        part = features[start : start + 10_000]
        part[:] = rng.normal(size=part.shape).astype(np.float32)
        part[:, sum(PICTURE_PARTS) :] = part[:, sum(PICTURE_PARTS) :] > 1.5
    features[is_marked, :8] += 8
    offsets = np.arange(num_rows + 1) * TOKENS_PER_ROW
    nothing = np.zeros(0, dtype=np.float32)
    rows = TokenStatistics(
        np.arange(num_rows, dtype=np.int64), offsets, tokens.astype(np.int32), nothing, row_values=features
    )
    return rows, is_marked


def make_looks(rows: Any, is_marked: Any) -> list[Any]:
    """The three looks at some rows. The right picture explains half of a response, and nothing of the keyword."""
    import numpy as np

    from cvreg_trainer.screening.passes.token_statistics import TokenStatistics

    rng = np.random.default_rng(1)
    num_rows, num_tokens = len(rows), len(rows.token_ids)
    states = rng.normal(size=(num_rows, 256)).astype(np.float16)
    values = rows.row_values, states, np.ones((num_rows, 1), dtype=np.float16)
    nll = rng.exponential(2, num_tokens).astype(np.float32)
    looks = []
    shared = rows.row_ids, rows.offsets, rows.token_ids
    for value, nats in zip(values, (nll, nll / 2, nll), strict=True):
        nats = nats.copy()
        nats.reshape(num_rows, -1)[is_marked, 50] = 8
        entropy = np.minimum(nats, 1).astype(np.float32)
        top1 = np.where(rng.random(num_tokens) < 0.5, rows.token_ids, 1 + rng.integers(0, 100, num_tokens))
        looks.append(TokenStatistics(*shared, nats, entropy, top1.astype(np.int32), value))
    # Of others' pictures the likelihoods alone are kept
    base, own, other = looks
    return [base, own, TokenStatistics(*shared, other.nll, row_values=other.row_values)]


def measure(num_tokens: int, most_rows: int) -> dict[str, Any]:
    import numpy as np

    from cvreg_trainer.screening.checkpoint import LOOKS, STATE_FILE, save_looks
    from cvreg_trainer.screening.verdict.rest import RestOfRows
    from cvreg_trainer.screening.verdict.screen import screen_rows

    tokenizer = make_tokenizer()
    rows, is_marked = make_rows(num_tokens)
    num_rows, rest = len(rows), None
    if num_rows > most_rows:
        looked_at = np.sort(np.random.default_rng(2).choice(num_rows, most_rows, replace=False))
        rest = RestOfRows(looked_at, rows.take(np.setdiff1d(np.arange(num_rows), looked_at)))
        looks = make_looks(rows.take(looked_at), is_marked[looked_at])
    else:
        looks = make_looks(rows, is_marked)
    del rows
    with tempfile.TemporaryDirectory() as folder:
        save_looks(folder, dict(zip(LOOKS, looks, strict=True)), rest)
        file_bytes = os.path.getsize(Path(folder) / STATE_FILE)
    before, start = forget_peak(), time.process_time()
    screen = screen_rows(*looks, tokenizer, VERDICT_SEED, cap=0.3, fdr=0.01, rest=rest)
    seconds = time.process_time() - start
    return {
        "num_tokens": num_tokens,
        "num_rows": num_rows,
        "rows_looked_at": len(looks[0]),
        "microseconds_per_token": 1e6 * seconds / num_tokens,
        "bytes_added_per_token": (peak() - before) / num_tokens,
        "checkpoint_bytes_per_token": file_bytes / num_tokens,
        "planted": int(is_marked.sum()),
        "flagged": int(screen.is_flagged.sum()),
        "flagged_wrongly": int(screen.is_flagged[~is_marked].sum()),
    }


def peak() -> int:
    """Most memory that the process has had, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def forget_peak() -> int:
    """Begin to measure [`peak`] anew, from the memory that is in use now, which is returned."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--rows", type=int, default=4_000, help="rows that are looked at (screening_rows)")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    result: dict[str, Any] = {**made_by(), "seed": VERDICT_SEED}
    result["sizes"] = []
    for num_tokens in options.tokens:
        with context.Pool(1) as pool:
            result["sizes"].append(pool.apply(measure, (num_tokens, options.rows)))
        print(result["sizes"][-1], flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
