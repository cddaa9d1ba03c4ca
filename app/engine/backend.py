"""What runs a model, and the choice between the two that can."""

import logging
from pathlib import Path
from typing import Literal, Protocol

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Kind, Precision
from app.engine.errors import ModelError

log = logging.getLogger(__name__)

Engine = Literal["openvino", "torch"]


class Backend(Protocol):
    """What runs the model."""

    name: str
    precision: str
    streams: int  # forwards that may run at a time

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        """What is wanted of each (index of a sequence, kind): shapes as for Kind, not normalised."""


def resolve_precision(engine: Engine, asked: Literal["auto"] | Precision) -> tuple[Precision, str]:
    """The precision that the engine runs in on this machine and the reason; ModelError without the engine."""
    if engine == "torch":
        if asked not in ("auto", "fp32"):
            raise ModelError(f"the torch engine runs in fp32, not in {asked}, set EMBED_ENGINE=openvino")
        return "fp32", "the torch engine has no other"
    try:
        from app.engine.openvino_backend import choose_precision
    except ImportError as error:
        raise ModelError(
            f"the openvino engine cannot be loaded ({error}), the torch engine is another"
        ) from error
    return choose_precision(asked)


def load_backend(
    checkpoint: Checkpoint,
    engine: Engine,
    asked: Literal["auto"] | Precision,
    cache: Path | None,
    threads: int,
    streams: int,
) -> Backend:
    """The engine that was asked for, ready to run; ModelError says what it lacks.

    `streams`: forwards at a time that share the threads, where the engine can.
    """
    precision, reason = resolve_precision(engine, asked)
    log.info("precision %s: %s", precision, reason)
    # Each imported only where it is asked for: torch costs seconds and memory, and either may be absent.
    if engine == "torch":
        from app.engine.torch_backend import TorchBackend

        return TorchBackend(checkpoint, threads)
    from app.engine.export import ensure_export
    from app.engine.openvino_backend import OpenVINOBackend

    graph = ensure_export(checkpoint, precision, cache)
    return OpenVINOBackend(checkpoint, graph, precision, threads, streams)
