"""What runs a model, and the choice between the two that can."""

import logging
from pathlib import Path
from typing import Literal, Protocol

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Kind, Precision
from app.engine.errors import ModelError

log = logging.getLogger(__name__)


class Backend(Protocol):
    """What runs the model."""

    name: str
    precision: str

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        """What is wanted of each (index of a sequence, kind): shapes as for Kind, not normalised."""


def load_backend(
    checkpoint: Checkpoint,
    engine: Literal["openvino", "torch"],
    precision: Literal["auto"] | Precision,
    threads: int,
    cache: Path | None,
) -> Backend:
    """The engine that was asked for, ready to run; ModelError says what it lacks."""
    # Each imported only where it is asked for: torch costs seconds and memory, and either may be absent.
    if engine == "torch":
        if precision not in ("auto", "fp32"):
            raise ModelError(f"the torch engine runs in fp32, not in {precision}, set EMBED_ENGINE=openvino")
        from app.engine.torch_backend import TorchBackend

        return TorchBackend(checkpoint, threads)
    try:
        from app.engine.export import ensure_export
        from app.engine.openvino_backend import OpenVINOBackend, choose_precision
    except ImportError as error:
        raise ModelError(
            f"the openvino engine cannot be loaded ({error}), the torch engine is another"
        ) from error
    chosen, reason = choose_precision(precision)
    log.info("precision %s: %s", chosen, reason)
    graph = ensure_export(checkpoint, chosen, cache)
    return OpenVINOBackend(checkpoint, graph, chosen, threads)
