"""Keeps what was found beside the export that it was found with, by the processor's kind and the pooling."""

from pathlib import Path
from typing import Any, cast, get_type_hints

from app.engine.embeddings import Pooling, Precision
from app.engine.export import lock, read_json, write_json
from app.evaluation.compare import Summary

EVALUATED = "evaluated.json"
KINDS = get_type_hints(Summary)


def keep(export: Path, kind: str, precision: Precision, pooling: Pooling, found: dict[str, Any]) -> Path:
    """Add records of collections to those that are there; raises OSError if the folder is read-only."""
    with lock(export.parent):
        key = _key(kind, precision, pooling)
        file = export / EVALUATED
        write_json(file, read_json(file) | {key: _kept(export, key) | found})
    return file


def summaries(export: Path, kind: str, precision: Precision, pooling: Pooling) -> dict[str, Summary]:
    """The summaries that are kept beside an export, by collection; those of damaged records are left out."""
    records = _kept(export, _key(kind, precision, pooling))
    found = {name: record.get("summary") for name, record in records.items() if isinstance(record, dict)}
    return {
        name: cast(Summary, summary)
        for name, summary in found.items()
        if isinstance(summary, dict) and {key: type(value) for key, value in summary.items()} == KINDS
    }


def _kept(export: Path, key: str) -> dict[str, Any]:
    found = read_json(export / EVALUATED).get(key)
    return found if isinstance(found, dict) else {}


def _key(kind: str, precision: Precision, pooling: Pooling) -> str:
    return f"{precision} on {kind}, {pooling} pooling"
