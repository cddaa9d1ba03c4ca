"""The fast backend: a graph of our own in OpenVINO, in fp32, bf16 or int8."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Pooling, Precision
from app.engine.errors import ModelError

# Shapes are rounded up to these steps, so that there are few of them: the plugin keeps what it
# prepared for each shape, and a request with a new one waits for that.
TOKEN_STEP = 16
LENGTH_STEP = 8
# Added to the attention scores of padding: 0 after the softmax, in float32 and bf16 alike.
MASKED = -1e9


def cpu_features() -> frozenset[str]:
    """Instruction set extensions of the processor, in the kernel's names."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def native_bf16() -> str:
    """The extension by which the processor multiplies bf16, "" if it has none that OpenVINO uses."""
    features = cpu_features()
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return ""
    return next((name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in features), "")


def choose_precision(asked: Literal["auto"] | Precision) -> tuple[Precision, str]:
    """The precision to run in and the reason, for the log."""
    if asked != "auto":
        return asked, "asked for"
    if extension := native_bf16():
        return "bf16", f"the processor has {extension}"
    return "fp32", "the processor does not multiply bf16"


class OpenVINOBackend:
    """A compiled graph behind one verb."""

    name = "openvino"

    def __init__(
        self,
        checkpoint: Checkpoint,
        graph: Path | ov.Model,
        precision: str,
        threads: int = 0,
        everything: bool = False,
    ) -> None:
        """Compile a graph, exported or just built; ModelError names its file.

        Only what `forward` answers is computed, or `everything` the graph can. 0 threads: all.
        """
        self.precision = precision
        self._offset = checkpoint.pad_id + 1 if checkpoint.offset_positions else 0
        self._pad_id = checkpoint.pad_id
        core = ov.Core()
        hint = "bf16" if precision != "fp32" and native_bf16() else "f32"
        try:
            model = core.read_model(graph) if isinstance(graph, Path) else graph
            results = {node.friendly_name: node for node in model.get_results()}
            if not everything:
                model = ov.Model([results["pooled"]], model.get_parameters(), "encoder")
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hint,
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": 1,
                },
            )
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"OpenVINO cannot load {graph}: {reason}") from error
        self._inputs = [node.friendly_name for node in model.get_parameters()]
        self._outputs = [node.friendly_name for node in model.get_results()]
        self._request = compiled.create_infer_request()

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Pooling]]) -> FloatArray:
        """A row (d,) for each wanted (index of a sequence, pooling), not normalised."""
        rows = self.outputs(sequences, wanted)["pooled"]
        finite = np.isfinite(rows).all(axis=1)
        if len(sequences) > 1 and not finite.all():
            # In a product 0 times NaN is NaN: in a packed batch one bad text takes others with it.
            for row in np.flatnonzero(~finite):
                index, pooling = wanted[row]
                rows[row] = self.outputs([sequences[index]], [(0, pooling)])["pooled"][0]
        return rows

    def outputs(self, sequences: list[IntArray], wanted: list[tuple[int, Pooling]]) -> dict[str, FloatArray]:
        """Every output the graph was compiled for, by its name."""
        inputs = self._pack(sequences, wanted)
        self._request.infer({index: inputs[name] for index, name in enumerate(self._inputs)})
        return {
            name: np.array(self._request.get_output_tensor(index).data, dtype=np.float32)
            for index, name in enumerate(self._outputs)
        }

    def _pack(self, sequences: list[IntArray], wanted: list[tuple[int, Pooling]]) -> dict[str, Any]:
        lengths = [len(sequence) for sequence in sequences]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        tokens = _up(int(starts[-1]), TOKEN_STEP)
        longest = _up(max(lengths), LENGTH_STEP)
        texts = len(sequences)
        ids = np.full(tokens, self._pad_id, np.int32)
        positions = np.full(tokens, self._offset, np.int32)
        rows = np.zeros((texts, longest), np.int32)
        back = np.zeros(tokens, np.int32)
        mask = np.full((texts, 1, 1, longest), MASKED, np.float32)
        pool = np.zeros((len(wanted), tokens), np.float32)
        for row, sequence in enumerate(sequences):
            start, end = starts[row], starts[row + 1]
            ids[start:end] = sequence
            positions[start:end] = self._positions(sequence)
            rows[row, : end - start] = np.arange(start, end)
            back[start:end] = row * longest + np.arange(end - start)
            mask[row, ..., : end - start] = 0
        for row, (index, pooling) in enumerate(wanted):
            start, end = starts[index], starts[index + 1]
            if pooling == "mean":
                pool[row, start:end] = 1 / (end - start)
            else:
                pool[row, start] = 1
        return {"ids": ids, "positions": positions, "rows": rows, "back": back, "mask": mask, "pool": pool}

    def _positions(self, sequence: IntArray) -> IntArray:
        """Where each token stands. XLM-RoBERTa gives a padding id in a text no place of its own."""
        if not self._offset:
            return np.arange(len(sequence))
        counted = sequence != self._pad_id
        return np.asarray(np.cumsum(counted) * counted + self._pad_id)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
