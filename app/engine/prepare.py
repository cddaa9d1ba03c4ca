"""Exports before they are needed, and what int8 would give beside the precision that `auto` takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.engine.backends import (
    PRECISIONS,
    AskedEngine,
    AskedPrecision,
    Place,
    choose,
    exporter_for,
    load_backend,
)
from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import Precision
from app.engine.errors import ModelError
from app.engine.export import ensure_export, find_export
from app.engine.measure import COMPARED, keep, quality, times_as_fast
from app.engine.processor import kind_of
from app.engine.texts import calibration_sequences


@dataclass(frozen=True)
class Prepared:
    """What is ready to be loaded."""

    precision: Precision
    folder: Path
    measured: dict[str, Any] = field(default_factory=dict)  # on this kind of processor, of 8-bit weights


def prepare(checkpoint: Checkpoint, engine: AskedEngine, asked: AskedPrecision, place: Place) -> Prepared:
    """Make the export for a precision, and measure 8-bit weights; ModelError if it cannot be."""
    chosen = choose(checkpoint, engine, asked, place)
    if chosen.engine == "torch":
        return Prepared(chosen.precision, checkpoint.path)  # it reads the weights as they are
    # What is named may be for another machine, whose processor has what this one has not.
    precision = chosen.precision if asked == "auto" or asked not in PRECISIONS[chosen.engine] else asked
    folder = ensure_export(checkpoint, exporter_for(chosen.engine), precision, place.cache)
    if precision in ("int8", "w8a16"):
        load_backend(checkpoint, chosen.engine, precision, place)  # which measures it
    return Prepared(precision, folder, quality(folder, kind_of(place.features), precision))


def compare(checkpoint: Checkpoint, engine: AskedEngine, place: Place) -> dict[str, Any]:
    """How int8 does beside what `auto` takes, on this processor: measured in one run, and kept.

    {} where no engine here runs int8, or where what it costs cannot be measured.
    """
    if engine == "torch":
        return {}
    chosen = choose(checkpoint, engine, "int8", place)
    if chosen.precision != "int8":
        return {}
    quick = load_backend(checkpoint, engine, "int8", place)  # which measures what it costs
    other = load_backend(checkpoint, engine, "auto", place)
    folder = ensure_export(checkpoint, exporter_for(chosen.engine), "int8", place.cache)
    cost = quality(folder, kind_of(place.features), "int8")
    if not cost:
        return {}
    sequences = calibration_sequences(checkpoint, held_out=True)
    found = {"times_as_fast": times_as_fast(quick, other, sequences), "than": other.precision}
    keep(folder, kind_of(place.features), "int8", found)
    return cost | found


def known_of_int8(checkpoint: Checkpoint, engine: AskedEngine, place: Place) -> dict[str, Any]:
    """What `compare` found on this kind of processor, {} if nothing has been measured."""
    try:
        chosen = choose(checkpoint, engine, "int8", place)
    except ModelError:
        return {}
    if chosen.precision != "int8":
        return {}
    folder = find_export(checkpoint, exporter_for(chosen.engine), "int8", place.cache)
    found = quality(folder, kind_of(place.features), "int8") if folder else {}
    return found if found.keys() >= COMPARED.keys() else {}
