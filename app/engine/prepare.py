"""Exports before they are needed, and what int8 would give beside the precision that `auto` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.engine.backends import (
    AskedEngine,
    AskedPrecision,
    Place,
    Unavailable,
    candidates,
    exporter_for,
    load_backend,
    resolve_precision,
)
from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import Precision
from app.engine.errors import ModelError
from app.engine.export import ensure_export, find_export
from app.engine.measure import keep, quality, times_as_fast
from app.engine.processor import kind_of
from app.engine.texts import calibration_sequences


@dataclass(frozen=True)
class Prepared:
    """An export that is ready."""

    precision: Precision
    folder: Path
    measured: dict[str, Any]  # on this kind of processor, {} for fp32 and bf16


def prepare(checkpoint: Checkpoint, engine: AskedEngine, asked: AskedPrecision, place: Place) -> Prepared:
    """Make the export for a precision, and measure 8-bit weights; ModelError if it cannot be."""
    precision, _ = resolve_precision(engine, asked, place.features)
    if asked != "auto":
        precision = asked  # it may be for another machine
    why = ""
    for candidate in candidates(engine, precision, place.features):
        if candidate == "torch":
            raise ModelError("the torch engine needs no export")
        try:
            folder = ensure_export(checkpoint, exporter_for(candidate), precision, place.cache)
        except Unavailable as error:
            why = f"the {candidate} engine cannot run here: {error}"
            continue
        if precision in ("int8", "w8a16"):
            load_backend(checkpoint, candidate, precision, place)  # which measures it
        return Prepared(precision, folder, quality(folder, kind_of(place.features), precision))
    raise ModelError(why)


def compare(checkpoint: Checkpoint, engine: AskedEngine, place: Place) -> dict[str, Any]:
    """How int8 does beside what `auto` takes, on this processor: measured in one run, and kept."""
    prepared = prepare(checkpoint, engine, "int8", place)
    quick = load_backend(checkpoint, engine, "int8", place)
    other = load_backend(checkpoint, engine, "auto", place)
    sequences = calibration_sequences(checkpoint, held_out=True)
    found = {"times_as_fast": times_as_fast(quick, other, sequences), "than": other.precision}
    keep(prepared.folder, kind_of(place.features), "int8", found)
    return prepared.measured | found


def known_of_int8(checkpoint: Checkpoint, engine: AskedEngine, place: Place) -> dict[str, Any]:
    """What `compare` found on this kind of processor, {} if nothing has been measured."""
    try:
        exporter = exporter_for(candidates(engine, "int8", place.features)[0])
        folder = find_export(checkpoint, exporter, "int8", place.cache)
    except (ModelError, Unavailable):
        return {}
    found = quality(folder, kind_of(place.features), "int8") if folder else {}
    return found if "times_as_fast" in found else {}
