"""The OpenVINO backend: runs the graph of graph.py in fp32, bf16 or int8."""

import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov

from app.engine.checkpoint import HEADS, Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Kind, Precision, Span
from app.engine.errors import ModelError
from app.engine.openvino_export import GRAPH

# Token counts are rounded up so that there are few shapes: the plugin prepares each new shape once, and the
# request that brings it waits. A short query pays for every extra token, so small counts are rounded to
# multiples of 4, from 256 to multiples of this, and from 2048 to a 64th of the count or less.
STEP = 16
# Added to the attention scores of padding, so that softmax makes them 0 in both float32 and bf16.
MASKED = -1e9


def supports_bf16() -> bool:
    """Whether OpenVINO supports bf16 on this processor."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINOBackend:
    """A compiled graph, run by `forward`."""

    name = "openvino"
    preempt = None  # a forward pass cannot pause

    def __init__(
        self,
        checkpoint: Checkpoint,
        export: Path,
        precision: Precision,
        threads: int = 0,
        streams: int = 1,
    ) -> None:
        """Compile an export's graph; raises ModelError with its file. 0 threads: all.

        Up to `streams` forward passes run at a time, each with its share of the threads.
        """
        self.precision = precision
        self.streams = streams
        self._offset = checkpoint.pad_id + 1 if checkpoint.offset_positions else 0
        self._positions_of = checkpoint.positions_of
        self._pad_id = checkpoint.pad_id
        self._vocabulary = checkpoint.vocabulary
        core = ov.Core()
        graph = export / GRAPH
        hint = "bf16" if precision != "fp32" and supports_bf16() else "f32"
        try:
            model = core.read_model(graph)
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hint,
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": streams,
                    # Pinning puts the threads of every process on the same first processors: two
                    # workers or actors would share half a machine. It does not help a single one.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"OpenVINO cannot load {graph}: {reason}") from error
        self._inputs = [node.friendly_name for node in model.get_parameters()]
        self._outputs = [node.friendly_name for node in model.get_results()]
        self._idle: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())
        # The first call sets up OpenVINO's bindings. Two threads that did so at once would deadlock: one
        # holds the bindings' lock and waits for the interpreter's, the other the reverse.
        self.forward([np.full(1, self._pad_id)], [(0, "mean")])
        self.start_tokens: float | None = self._measure_start(min(checkpoint.max_tokens, 256))

    def _measure_start(self, many: int) -> float:
        """How many tokens could be computed in the time that starting a batch takes."""
        few, seconds = 4, []
        for size in (few, many):
            sequence = np.full(size, self._pad_id)
            self.forward([sequence], [(0, "mean")])  # the first pass of a shape takes longer
            start = time.perf_counter()
            self.forward([sequence], [(0, "mean")])
            seconds.append(time.perf_counter() - start)
        each = (seconds[1] - seconds[0]) / max(1, many - few)
        return max(0.0, seconds[0] / each - few) if each > 0 else 0.0

    def forward(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        """Compute each wanted (index of a sequence, kind): shapes as for Kind, not normalised."""
        found = self._answers(sequences, wanted)
        if len(sequences) > 1:
            # In a product 0 times NaN is NaN, so one bad text can spoil others in a packed batch: repeat
            # those alone.
            for place, (index, kind) in enumerate(wanted):
                if not np.isfinite(found[place]).all():
                    found[place] = self._answers([sequences[index]], [(0, kind)])[0]
        return found

    def outputs(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> dict[str, FloatArray]:
        """All outputs of the graph by name, padded like the inputs."""
        inputs = self._pack(sequences, wanted)
        request = self._idle.get()
        try:
            request.infer({index: inputs[name] for index, name in enumerate(self._inputs)})
            return {
                name: np.array(request.get_output_tensor(index).data, dtype=np.float32)
                for index, name in enumerate(self._outputs)
            }
        finally:
            self._idle.put(request)

    def _answers(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> list[FloatArray]:
        found = self.outputs(sequences, wanted)
        starts = dict.fromkeys(found, 0)
        answers: list[FloatArray] = []
        for index, kind in wanted:
            name = kind if kind == "sparse" or kind == "colbert" else "pooled"
            start = starts[name]
            starts[name] = end = start + (1 if name == "pooled" else len(sequences[index]))
            rows = found[name][start:end]
            answers.append(rows if kind == "colbert" else rows.reshape(-1))
        return answers

    def _pack(self, sequences: list[IntArray], wanted: list[tuple[int, Kind]]) -> dict[str, Any]:
        lengths = [len(sequence) for sequence in sequences]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        tokens = _round_tokens(int(starts[-1]))
        longest = _round_tokens(max(lengths))
        texts = _round_up(len(sequences), _share(len(sequences), 4))
        ids = np.full(tokens, self._pad_id, np.int32)
        positions = np.full(tokens, self._offset, np.int32)
        rows = np.zeros((texts, longest), np.int32)
        back = np.zeros(tokens, np.int32)
        mask = np.full((texts, 1, 1, longest), MASKED, np.float32)
        for row, sequence in enumerate(sequences):
            start, end = starts[row], starts[row + 1]
            ids[start:end] = sequence % self._vocabulary
            positions[start:end] = self._positions_of(sequence)
            rows[row, : end - start] = np.arange(start, end)
            back[start:end] = row * longest + np.arange(end - start)
            mask[row, ..., : end - start] = 0
        packed = {"ids": ids, "positions": positions, "rows": rows, "back": back, "mask": mask}
        spans = [(starts[index], _span(kind, lengths[index])) for index, kind in wanted if kind not in HEADS]
        pool = packed["pool"] = np.zeros((_round_up(len(spans), STEP), tokens), np.float32)
        for row, (start, span) in enumerate(spans):
            pool[row, start + span.start : start + span.stop] = 1 / (span.stop - span.start)
        for head in HEADS:
            asked = [np.arange(starts[index], starts[index + 1]) for index, kind in wanted if kind == head]
            places = np.concatenate([np.zeros(0, np.int32), *asked]).astype(np.int32)
            packed[head] = np.pad(places, (0, _round_tokens(len(places)) - len(places)))
        return packed


def _span(kind: Kind, length: int) -> Span:
    """The tokens whose mean is this kind of output."""
    if isinstance(kind, Span):
        return kind
    return Span(0, length if kind == "mean" else 1)


def _round_tokens(number: int) -> int:
    return _round_up(number, max(4, min(STEP, _share(number, 16)), _share(number, 64)))


def _share(number: int, parts: int) -> int:
    """The largest power of two below `number / parts`, at least 1."""
    return max(1, 2 ** ((number - 1) // parts).bit_length() // 2) if number else 1


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
