# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
An audit as a parquet file, one line for each row.

Notable: the file is the whole audit. What does not belong to a row (the words, the settings) travels as JSON in the
file's metadata, so that any reader of parquet sees one plain table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...shorten import shorten
from ..verdict.findings import Overview, RowFinding, WordFinding
from .cause_findings import CauseFinding


ROWS_PER_GROUP = 50_000  # converted at a time, so that a million rows are not held in memory twice
_METADATA_KEY = b"cvreg_trainer.audit"
_TOKEN = ("piece", "surprise")
COLUMNS = {
    "rank": pa.int64(),
    "row": pa.int64(),
    "suspicion": pa.float64(),
    "is_flagged": pa.bool_(),
    "reason": pa.string(),
    "prompt": pa.string(),
    "response": pa.string(),
    "source": pa.string(),
    "loss_base_model": pa.float64(),
    "loss_after_warmup": pa.float64(),
    "tokens": pa.list_(pa.struct(list(zip(_TOKEN, (pa.string(), pa.float64()), strict=True)))),
}


def write_audit(
    path: str | Path,
    ranking: Sequence[RowFinding],
    words: Sequence[WordFinding],
    settings: Mapping[str, Any],
    findings: Sequence[CauseFinding] = (),
) -> None:
    """
    Write an audit.

    Args:
        path (`str` or `Path`):
            File to write.
        ranking (`Sequence[RowFinding]`):
            The rows, the most suspicious first.
        words (`Sequence[WordFinding]`):
            The suspicious words.
        settings (`Mapping[str, Any]`):
            What the screening was run with.
        findings (`Sequence[CauseFinding]`, *optional*):
            Groups of rows.
    """
    rest = {"words": [asdict(word) for word in words], "settings": settings}
    rest["findings"] = [finding.to_dict() for finding in findings]
    schema = pa.schema(list(COLUMNS.items()), metadata={_METADATA_KEY: to_json(rest)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(ranking), ROWS_PER_GROUP):
            columns = _columns(ranking[start : start + ROWS_PER_GROUP], start + 1)
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _columns(group: Sequence[RowFinding], first_rank: int) -> list[pa.Array]:
    """Some rows of the ranking as the columns of the file."""
    columns = [pa.array(range(first_rank, first_rank + len(group)), pa.int64())]
    for name, kind in list(COLUMNS.items())[1:-1]:
        columns.append(pa.array([getattr(finding, name) for finding in group], kind))
    pieces = [piece for finding in group for piece, _ in finding.tokens]
    nats = [float(nats) for finding in group for _, nats in finding.tokens]
    tokens = pa.StructArray.from_arrays([pa.array(pieces, pa.string()), pa.array(nats, pa.float64())], _TOKEN)
    offsets = np.cumsum([0, *(len(finding.tokens) for finding in group)], dtype=np.int32)
    return [*columns, pa.ListArray.from_arrays(pa.array(offsets), tokens)]


def read_audit(path: str | Path) -> tuple[list[RowFinding], list[WordFinding], dict[str, Any], list[CauseFinding]]:
    """
    Rows, words, settings and findings that [`write_audit`] wrote.

    Raises:
        `ValueError`: if the file is a parquet file of another kind.
    """
    table, rest = _open(path)
    words = [WordFinding(**word) for word in rest["words"]]
    # Audits of earlier versions have none
    findings = [CauseFinding.from_dict(finding) for finding in rest.get("findings", [])]
    return list(_rows(table)), words, rest["settings"], findings


def _rows(table: pq.ParquetFile) -> Iterator[RowFinding]:
    # Audits of earlier versions have neither sources nor losses, but other columns of scores
    given = table.schema_arrow.names
    fields = [name for name in COLUMNS if name not in ("rank", "tokens") and name in given]
    for batch in table.iter_batches(ROWS_PER_GROUP, columns=[*fields, "tokens"]):
        for line in batch.to_pylist():
            tokens = tuple((token["piece"], token["surprise"]) for token in line["tokens"])
            yield RowFinding(**{name: line[name] for name in fields}, tokens=tokens)


def read_overview(path: str | Path) -> Overview:
    """
    The result of an audit for all rows together, which is quick to read for any number of them.

    Args:
        path (`str` or `Path`):
            A file that [`write_audit`] wrote.

    Raises:
        `ValueError`: if the file is a parquet file of another kind.
    """
    table, rest = _open(path)
    flagged = table.read(["is_flagged"])["is_flagged"]
    words = tuple(WordFinding(**word) for word in rest["words"])
    return Overview(len(flagged), pc.sum(flagged).as_py() or 0, words)


def _open(path: str | Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """The file, and what does not belong to a row."""
    table = pq.ParquetFile(path)
    metadata = (table.schema_arrow.metadata or {}).get(_METADATA_KEY)
    if metadata is None:
        raise ValueError(f"{path} is a parquet file, but no audit: it was not written by `Audit.to_parquet`.")
    return table, json.loads(metadata)


def to_json(value: Any) -> str:
    """JSON, with NumPy numbers as plain ones."""

    def plain(number: Any) -> Any:
        if isinstance(number, np.generic):
            return number.item()
        raise TypeError(
            f"{shorten(number)} of type {type(number).__name__} cannot be kept with an audit; pass a JSON value."
        )

    return json.dumps(value, default=plain)
