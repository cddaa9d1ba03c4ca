"""What runs a model, and which of them does on this processor and in this precision."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Kind, Precision
from app.engine.errors import ModelError
from app.engine.export import Exporter, ensure_export
from app.engine.measure import measured
from app.engine.processor import cpu_features, kind_of

log = logging.getLogger(__name__)

Engine = Literal["native", "openvino", "torch"]
AskedEngine = Literal["auto"] | Engine
AskedPrecision = Literal["auto"] | Precision

# Which engine runs a precision on which processor: the first row whose extension the processor has. A
# processor without any of a precision's extensions does not have that precision in hardware.
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
# What takes over where an engine cannot be loaded, in this order.
NEXT: tuple[Engine, ...] = ("native", "openvino", "torch")
PRECISIONS: dict[Engine, tuple[Precision, ...]] = {
    "native": ("fp32", "bf16", "int8", "w8a16"),
    "openvino": ("fp32", "bf16", "int8"),
    "torch": ("fp32",),
}
# Extensions with which w8a16 is much faster than fp32 and loses as little as bf16: `auto` takes it where
# there is no bf16.
FAST_W8A16 = ("avx512_vnni", "avx_vnni")


class Backend(Protocol):
    """What runs the model."""

    name: str
    precision: Precision
    streams: int  # forwards that may run at a time
    # Where attention computes every text as if it were as long as the longest of its batch: how many tokens
    # could be computed in the time that starting another batch takes. None where any texts go together.
    start_tokens: float | None

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        """What is wanted of each (index of a sequence, kind): shapes as for Kind, not normalised."""


class Unavailable(Exception):
    """An engine cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Place:
    """Where and on what a model is to run."""

    cache: Path | None = None  # for exports and the compiled library, where theirs is read-only
    threads: int = 1
    streams: int = 1  # forwards at a time that share the threads, where the engine can
    instructions: str = ""  # hold the processor to these, by their name in native/compiler.py

    @property
    def features(self) -> frozenset[str]:
        """The processor's extensions, or the fewer that it is held to; ModelError if it has not those."""
        if not self.instructions:
            return cpu_features()
        from app.engine.native.compiler import NoLibrary, instructions

        try:
            return instructions(self.instructions).features
        except NoLibrary as error:
            raise ModelError(f"EMBED_NATIVE_ISA is {self.instructions}, but {error}") from error


def resolve_precision(
    engine: AskedEngine, asked: AskedPrecision, features: frozenset[str]
) -> tuple[Precision, str]:
    """The precision to run in and the reason; ModelError if the engine does not have it."""
    has_bf16 = next((name for _, name, _ in _rows("bf16", engine) if name in features), "")
    fast_w8a16 = next((name for name in FAST_W8A16 if name in features), "")
    if asked == "bf16" and not has_bf16 and engine != "torch":
        return "fp32", "bf16 was asked for, but the processor does not support it in hardware"
    if asked != "auto":
        if engine != "auto" and asked not in PRECISIONS[engine]:
            known = " or ".join(PRECISIONS[engine])
            raise ModelError(f"the {engine} engine runs in {known}, not in {asked}: set EMBED_ENGINE=auto")
        return asked, "asked for"
    if engine == "torch":
        return "fp32", "the torch engine has no other"
    if has_bf16:
        return "bf16", f"the processor has {has_bf16}"
    if fast_w8a16 and engine in ("auto", "native"):
        return "w8a16", f"the processor has {fast_w8a16} and no bf16"
    return "fp32", "the processor has no bf16"


def candidates(engine: AskedEngine, precision: Precision, features: frozenset[str]) -> list[Engine]:
    """The engines to try, the best first; one that was asked for by name is the only one."""
    if engine != "auto":
        return [engine]
    best = next((of for _, name, of in _rows(precision) if not name or name in features), None)
    if best is None:
        raise ModelError(f"no engine runs in {precision} on this processor: set EMBED_PRECISION=auto")
    return list(NEXT[NEXT.index(best) :])


def _rows(precision: Precision, engine: AskedEngine = "auto") -> list[tuple[Precision, str, Engine]]:
    return [row for row in CHOICE if row[0] == precision and engine in ("auto", row[2])]


def load_backend(checkpoint: Checkpoint, engine: AskedEngine, asked: AskedPrecision, place: Place) -> Backend:
    """The engine for what was asked, ready to run; ModelError says what is missing."""
    precision, reason = resolve_precision(engine, asked, place.features)
    log.info("precision %s: %s", precision, reason)
    why = ""
    for candidate in candidates(engine, precision, place.features):
        possible = precision if precision in PRECISIONS[candidate] else "fp32"
        if why:
            log.warning("%s; running %s in %s instead", why, candidate, possible)
        try:
            return LOADERS[candidate](checkpoint, possible, place)
        except Unavailable as error:
            why = f"the {candidate} engine cannot run here: {error}"
    raise ModelError(why)


def exporter_for(engine: Engine) -> Exporter:
    """Who makes an engine's exports; Unavailable without what it needs."""
    try:
        if engine == "native":
            from app.engine.native.export import NativeExporter

            return NativeExporter()
        from app.engine.openvino_export import OpenVINOExporter

        return OpenVINOExporter()
    except ImportError as error:
        raise Unavailable(str(error)) from error


# Each engine is imported only where it runs: torch costs seconds and memory, and any may be absent.


def _native(checkpoint: Checkpoint, precision: Precision, place: Place) -> Backend:
    from app.engine.native.backend import NativeBackend
    from app.engine.native.compiler import NoLibrary, instructions, load_library
    from app.engine.native.layout import fits

    if not fits(checkpoint):
        raise Unavailable(f"the sizes of {checkpoint.path} are no multiples of 16")
    try:
        library = load_library(instructions(place.instructions), place.cache)
    except NoLibrary as error:
        raise Unavailable(str(error)) from error
    exporter = exporter_for("native")
    export = ensure_export(checkpoint, exporter, precision, place.cache)
    backend = NativeBackend(checkpoint, export, precision, library, place.threads, place.streams)
    measured(checkpoint, backend, export, kind_of(place.features))
    return backend


def _openvino(checkpoint: Checkpoint, precision: Precision, place: Place) -> Backend:
    exporter = exporter_for("openvino")
    from app.engine.openvino_backend import OpenVINOBackend

    export = ensure_export(checkpoint, exporter, precision, place.cache)
    backend = OpenVINOBackend(checkpoint, export, precision, place.threads, place.streams)
    measured(checkpoint, backend, export, kind_of(place.features))
    return backend


def _torch(checkpoint: Checkpoint, precision: Precision, place: Place) -> Backend:
    try:
        from app.engine.torch_backend import TorchBackend
    except ImportError as error:
        raise Unavailable(str(error)) from error
    return TorchBackend(checkpoint, place.threads)


LOADERS: dict[Engine, Callable[[Checkpoint, Precision, Place], Backend]] = {
    "native": _native,
    "openvino": _openvino,
    "torch": _torch,
}
