# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Time and memory of the fused two-view head beside the plain formula with both views' logits in full.

    python benchmarks/fused_head.py --output benchmarks/results/fused_head_cpu.json
    python benchmarks/fused_head.py --last_position --output benchmarks/results/last_position_cpu.json

Each measurement runs forward and backward in a process of its own (on a GPU: in the same process, after a reset of the
peak), the two in turn. Peak memory is what the step adds to the inputs: resident memory on a CPU, allocated on a GPU.

With `--last_position`: a frozen head at the last position of each row, the one that the model itself still computes in
a forward of both views, handed over as a slice, for which PyTorch reads the whole weight once a row, or in one piece
as the package does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import torch
from grid_runs import made_by

from cvreg_trainer.head import cross_view_statistics
from cvreg_trainer.head.cross_view_head import _capture


SEED = 0


def plain_statistics(
    hidden: torch.Tensor, perturbed: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """The definitions, with autograd keeping what it needs."""
    z, z_perturbed = (hidden @ weight.t()).float(), (perturbed @ weight.t()).float()
    log_p, p, q = z.log_softmax(-1), z.softmax(-1), z_perturbed.softmax(-1)
    entropy = -(p * log_p).sum(-1)
    return log_p.gather(-1, targets[:, None])[:, 0], entropy, torch.cosine_similarity(p, q, dim=-1)


def measure(head: str, tokens: int, width: int, vocabulary: int, device: str) -> dict[str, float]:
    """Seconds of one forward and backward, and MiB on top of the inputs."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    make = {"device": device, "dtype": dtype, "requires_grad": True}
    hidden, perturbed = torch.randn(tokens, width, **make), torch.randn(tokens, width, **make)
    weight = (torch.randn(vocabulary, width, device=device, dtype=dtype) / width**0.5).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), device=device)
    before = memory(device, reset=True)
    synchronize(device)
    start = time.perf_counter()
    function = plain_statistics if head == "plain" else lambda *a: cross_view_statistics(*a)[:3]
    log_probs, entropy, similarity = function(hidden, perturbed, weight, targets)
    (entropy.mean() + similarity.mean() - log_probs.mean()).backward()
    synchronize(device)
    return {"seconds": time.perf_counter() - start, "mib": memory(device) - before}


@torch.no_grad()
def measure_last_position(rows: int, vocabulary: int, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of the head at the last of 64 positions, in turn after a warm-up."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    width, device = 576, options.device
    make = {"device": device, "dtype": getattr(torch, dtype)}
    head = torch.nn.Linear(width, vocabulary, bias=False, **make).requires_grad_(False)
    hidden, layer = torch.randn(rows, 64, width, **make), torch.nn.Identity()
    seconds: dict[str, list[float]] = {"slice": [], "package": []}
    for repeat in range(options.repeats + 1):
        for way, done in seconds.items():
            with _capture(head, layer, None) if way == "package" else nullcontext():  # type: ignore[arg-type]
                synchronize(device)
                start = time.perf_counter()
                head(hidden if way == "package" else hidden[:, -1:])
                synchronize(device)
            if repeat:
                done.append(time.perf_counter() - start)
    taken = {way: statistics.median(done) for way, done in seconds.items()}
    row: dict[str, Any] = {"rows": rows, "width": width, "vocabulary": vocabulary, "dtype": dtype}
    row |= {f"{way}_seconds": value for way, value in taken.items()}
    return row | {"seconds_ratio": taken["package"] / taken["slice"]}


def memory(device: str, reset: bool = False) -> float:
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="+", default=None)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=None)
    parser.add_argument("--last_position", action="store_true", help="measure the head at one position per row")
    options = parser.parse_args()
    gpu = options.device == "cuda"
    rows = measure_last_positions(options) if options.last_position else measure_heads(options, gpu)
    device = torch.cuda.get_device_name() if gpu else "cpu"
    report = {**made_by(), "seed": SEED, "repeats": options.repeats, "rows": rows}
    report["environment"]["device"] = device
    options.output.write_text(json.dumps(report, indent=2) + "\n")


def measure_last_positions(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for vocabulary, dtype, size in product(options.vocabularies or [49_153], ("float32", "bfloat16"), (2, 4, 8, 16)):
        rows.append(measure_last_position(size, vocabulary, dtype, options))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def measure_heads(options: argparse.Namespace, gpu: bool) -> list[dict[str, Any]]:
    width, token_counts = (4096 if gpu else 256), options.tokens or ([1024, 8192] if gpu else [512])
    # A fresh process for each CPU measurement: resident memory has no reset
    pool: Any = multiprocessing.get_context("spawn")
    rows = []
    for vocabulary in options.vocabularies or [32_000, 128_000]:
        for tokens in token_counts:
            runs: dict[str, list[dict[str, float]]] = {"plain": [], "fused": []}
            for _ in range(options.repeats):
                for head, done in runs.items():
                    arguments = (head, tokens, width, vocabulary, options.device)
                    if gpu:
                        done.append(measure(*arguments))
                    else:
                        with pool.Pool(1) as process:
                            done.append(process.apply(measure, arguments))
            row: dict[str, Any] = {"tokens": tokens, "width": width, "vocabulary": vocabulary}
            for key in ("seconds", "mib"):
                plain, fused = (statistics.median(run[key] for run in runs[head]) for head in ("plain", "fused"))
                row |= {f"plain_{key}": plain, f"fused_{key}": fused, f"{key}_ratio": fused / plain}
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
