"""Makes exports before they are needed, and compares int8 with the precision that `auto` chooses."""

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
    """An export that is ready to be loaded."""

    precision: Precision
    folder: Path
    measured: dict[str, Any] = field(default_factory=dict)  # 8-bit weights on this kind of processor


def prepare(checkpoint: Checkpoint, engine: AskedEngine, asked: AskedPrecision, place: Place) -> Prepared:
    """Make the export for a precision, and measure 8-bit weights; raises ModelError if that fails."""
    chosen = choose(checkpoint, engine, asked, place)
    if chosen.engine == "torch":
        return Prepared(chosen.precision, checkpoint.path)  # torch reads the weights as they are
    # A precision asked for by name may be for another machine, whose processor supports more.
    precision = chosen.precision if asked == "auto" or asked not in PRECISIONS[chosen.engine] else asked
    folder = ensure_export(checkpoint, exporter_for(chosen.engine), precision, place.cache)
    if precision in ("int8", "w8a16"):
        load_backend(checkpoint, chosen.engine, precision, place)  # this measures it
    return Prepared(precision, folder, quality(folder, kind_of(place.features), precision))


def compare(checkpoint: Checkpoint, engine: AskedEngine, place: Place) -> dict[str, Any]:
    """Compare int8 with the precision that `auto` chooses, on this processor in one run, and store it.

    {} if no engine here runs int8, or if its accuracy cannot be measured.
    """
    if engine == "torch":
        return {}
    chosen = choose(checkpoint, engine, "int8", place)
    if chosen.precision != "int8":
        return {}
    quick = load_backend(checkpoint, engine, "int8", place)  # this measures its accuracy
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
    """What `compare` found on this kind of processor; {} if nothing has been measured."""
    try:
        chosen = choose(checkpoint, engine, "int8", place)
    except ModelError:
        return {}
    if chosen.precision != "int8":
        return {}
    folder = find_export(checkpoint, exporter_for(chosen.engine), "int8", place.cache)
    found = quality(folder, kind_of(place.features), "int8") if folder else {}
    return found if found.keys() >= COMPARED.keys() else {}
