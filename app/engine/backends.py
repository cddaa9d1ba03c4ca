"""The engines that run a model, and the choice of one for a processor and a precision."""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Kind, Precision
from app.engine.errors import ModelError
from app.engine.export import Exporter, ensure_export, read_scoring_head
from app.engine.measure import measured
from app.engine.model import Forward
from app.engine.native import compiler
from app.engine.processor import cpu_features, kind_of
from app.engine.scoring import Scoring

log = logging.getLogger(__name__)

Engine = Literal["native", "openvino", "torch"]
AskedEngine = Literal["auto"] | Engine
AskedPrecision = Literal["auto"] | Precision

# The best engine for a precision: the first row whose extension the processor has ("": every processor).
CHOICE: tuple[tuple[Precision, str, Engine], ...] = (
    ("bf16", "amx_bf16", "openvino"),
    ("bf16", "avx512_bf16", "native"),
    ("bf16", "bf16", "openvino"),  # Arm's
    ("fp32", "avx2", "native"),
    ("fp32", "", "openvino"),
    ("int8", "avx2", "native"),
    ("int8", "", "openvino"),
    ("w8a16", "avx2", "native"),
)
FALLBACKS: tuple[Engine, ...] = ("native", "openvino", "torch")  # tried in this order, best first
PRECISIONS: dict[Engine, tuple[Precision, ...]] = {
    "native": ("fp32", "bf16", "int8", "w8a16"),
    "openvino": ("fp32", "bf16", "int8"),
    "torch": ("fp32",),
}
# With any of these extensions an engine runs bf16 in hardware.
BF16: dict[Engine, tuple[str, ...]] = {
    "native": ("avx512_bf16",),
    "openvino": ("amx_bf16", "avx512_bf16", "bf16"),
    "torch": (),
}
# With these extensions w8a16 is much faster than fp32 and as accurate as bf16: `auto` uses it if the
# processor has no bf16.
FAST_W8A16 = ("avx512_vnni", "avx_vnni")


class Backend(Protocol):
    """Runs a model on one engine."""

    name: str
    precision: Precision
    streams: int  # how many forward passes may run at the same time
    # If attention pads every text to the longest of its batch: how many tokens could be computed in the time
    # that starting another batch takes. None if texts of any lengths can share a batch.
    start_tokens: float | None

    @property
    def preempt(self) -> Forward | None:
        """Like `forward`, but pauses every running forward pass meanwhile; None if they cannot pause."""

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        """Compute each wanted (index of a sequence, kind): shapes as for Kind, not normalised."""


@dataclass(frozen=True)
class Place:
    """The folder, threads and instructions that a model runs with."""

    cache: Path | None = None  # for exports and the compiled library, if their own folders are read-only
    threads: int = 1
    streams: int = 1  # forward passes that run at the same time and share the threads, if the engine can
    instructions: str = ""  # use only this instruction set, by its name in native/compiler.py

    @property
    def features(self) -> frozenset[str]:
        """The processor's extensions, limited to `instructions`; raises ModelError if it lacks them."""
        if not self.instructions:
            return cpu_features()
        try:
            return compiler.instructions(self.instructions)[0].features
        except compiler.NoLibrary as error:
            raise ModelError(f"EMBED_NATIVE_ISA is {self.instructions}, but {error}") from error


@dataclass(frozen=True)
class Chosen:
    """The engine and precision that run here, and why."""

    engine: Engine
    precision: Precision
    reason: str  # for the precision; "" where it was asked for by name
    better: str = ""  # why no better engine runs; "" if this is the best one
    auto: bool = False  # nobody asked for a precision

    @property
    def told(self) -> str:
        """The precision and the reason."""
        if self.auto:
            return f"auto: {self.precision}, because {self.reason}"
        return f"{self.precision}, {self.reason or 'as asked for'}"


def choose(checkpoint: Checkpoint, engine: AskedEngine, asked: AskedPrecision, place: Place) -> Chosen:
    """Choose the engine and precision; raises ModelError if what was asked for cannot run here."""
    precision, reason = resolve_precision(engine, asked, place.features)
    why = ""
    for candidate in candidates(engine, precision, place.features):
        possible = precision if precision in PRECISIONS[candidate] else "fp32"
        if missing := _missing(candidate, possible, checkpoint, place):
            why = why or f"the {candidate} engine cannot run here: {missing}"
            continue
        return Chosen(candidate, possible, reason, why, auto=asked == "auto")
    raise ModelError(why)


def resolve_precision(
    engine: AskedEngine, asked: AskedPrecision, features: frozenset[str]
) -> tuple[Precision, str]:
    """The precision to run in, and the reason; the reason is "" where it was asked for.

    Raises ModelError if the engine does not support it.
    """
    known = FALLBACKS if engine == "auto" else (engine,)
    has_bf16 = next((name for of in known for name in BF16[of] if name in features), "")
    fast_w8a16 = next((name for name in FAST_W8A16 if name in features), "")
    if asked != "auto":
        if engine != "auto" and asked not in PRECISIONS[engine]:
            runs = " or ".join(PRECISIONS[engine])
            raise ModelError(f"the {engine} engine runs in {runs}, not in {asked}: set EMBED_ENGINE=auto")
        if asked == "bf16" and not has_bf16:
            return "fp32", "bf16 was asked for, but the processor does not support it in hardware"
        return asked, ""
    if engine == "torch":
        return "fp32", "the torch engine supports no other"
    if has_bf16:
        return "bf16", f"the processor supports bf16 in hardware ({has_bf16})"
    if fast_w8a16 and "native" in known:
        return "w8a16", f"the processor has {fast_w8a16}, but does not support bf16 in hardware"
    return "fp32", "the processor does not support bf16 in hardware"


def candidates(engine: AskedEngine, precision: Precision, features: frozenset[str]) -> list[Engine]:
    """The engines to try, best first; an engine that was asked for by name is the only one."""
    if engine != "auto":
        return [engine]
    rows = (of for row, name, of in CHOICE if row == precision and (not name or name in features))
    best = next(rows, None)
    if best is None:
        raise ModelError(f"no engine runs in {precision} on this processor: set EMBED_PRECISION=auto")
    return list(FALLBACKS[FALLBACKS.index(best) :])


def _missing(engine: Engine, precision: Precision, checkpoint: Checkpoint, place: Place) -> str:
    """What the engine lacks to run this checkpoint in this precision here; "" if nothing."""
    try:
        if engine != "native":
            importlib.import_module(f"app.engine.{engine}_backend")
            return ""
        from app.engine.native.layout import fits

        if not fits(checkpoint):
            return f"the sizes of {checkpoint.path} are not multiples of 16"
        _, found = compiler.load_library(place.instructions, place.cache)
        if precision == "bf16" and not found.bf16:
            return f"its library for {found.name} does not support bf16"
    except (ImportError, compiler.NoLibrary) as error:
        return str(error)
    return ""


def load_backend(checkpoint: Checkpoint, engine: AskedEngine, asked: AskedPrecision, place: Place) -> Backend:
    """Load the engine that was asked for; raises ModelError if it cannot run here."""
    chosen = choose(checkpoint, engine, asked, place)
    if chosen.better:
        log.warning("%s; the %s engine runs instead, in %s", chosen.better, chosen.engine, chosen.precision)
    if chosen.reason:
        log.info("%s", chosen.told)
    if chosen.engine == "torch":
        from app.engine.torch_backend import TorchBackend
        from app.engine.weights import Weights

        reference = TorchBackend(checkpoint, place.threads)
        return Scoring(reference, Weights(checkpoint).scoring_head()) if checkpoint.labels else reference
    export = ensure_export(checkpoint, exporter_for(chosen.engine), chosen.precision, place.cache)
    backend = LOADERS[chosen.engine](checkpoint, export, chosen.precision, place)
    if checkpoint.labels:
        backend = Scoring(backend, read_scoring_head(export))
    measured(checkpoint, backend, export, kind_of(place.features))
    return backend


# Import an engine only if it runs: torch costs seconds and memory, and any of them may not be installed.


def exporter_for(engine: Engine) -> Exporter:
    """The exporter of an engine; torch has none."""
    if engine == "native":
        from app.engine.native.export import NativeExporter

        return NativeExporter()
    from app.engine.openvino_export import OpenVINOExporter

    return OpenVINOExporter()


def _native(checkpoint: Checkpoint, export: Path, precision: Precision, place: Place) -> Backend:
    from app.engine.native.backend import NativeBackend

    library, _ = compiler.load_library(place.instructions, place.cache)
    return NativeBackend(checkpoint, export, precision, library, place.threads, place.streams)


def _openvino(checkpoint: Checkpoint, export: Path, precision: Precision, place: Place) -> Backend:
    from app.engine.openvino_backend import OpenVINOBackend

    return OpenVINOBackend(checkpoint, export, precision, place.threads, place.streams)


LOADERS: dict[Engine, Callable[[Checkpoint, Path, Precision, Place], Backend]] = {
    "native": _native,
    "openvino": _openvino,
}
