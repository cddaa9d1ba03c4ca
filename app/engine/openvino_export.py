"""Exports for OpenVINO: the graph of an encoder and its weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import openvino as ov

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import Precision
from app.engine.export import layers
from app.engine.graph import LargestInputs, build_graph

if TYPE_CHECKING:  # it brings torch
    from app.engine.weights import Weights

FORMAT = 4  # of the graph; raise it whenever a change of graph.py or of the calibration changes vectors
GRAPH = "encoder.xml"
# The graph's names for the linear layers of calibration.py.
NAMES = {
    "joined": "attention.self",
    "attended": "attention.output.dense",
    "grown": "intermediate.dense",
    "shrunk": "output.dense",
}


class OpenVINOExporter:
    """Writes one graph for each precision."""

    engine = "openvino"

    def stored(self, precision: Precision) -> str:
        return precision

    def identity(self) -> dict[str, Any]:
        return {"format": FORMAT, "openvino": ov.__version__}

    def write(self, checkpoint: Checkpoint, weights: "Weights", stored: str, folder: Path) -> None:
        largest: LargestInputs = {}
        if stored == "int8":
            from app.engine.calibration import Calibration

            calibration = Calibration(checkpoint, weights)
            for layer in layers(checkpoint):
                for name, inputs in calibration.layer(layer).items():
                    largest[f"encoder.layer.{layer}.{NAMES[name]}"] = inputs.largest
            for name, array in calibration.held_out().items():
                np.save(folder / name, array)
        _save(build_graph(checkpoint, weights, cast(Precision, stored), largest), folder / GRAPH)


def _save(graph: ov.Model, file: Path) -> None:
    try:
        ov.save_model(graph, file, compress_to_fp16=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise OSError(0, f"OpenVINO could not write it: {reason}") from error
