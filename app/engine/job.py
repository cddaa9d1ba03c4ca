"""What one call asks of the batcher."""

import time
from concurrent.futures import Future

from app.engine.embeddings import FloatArray, IntArray, Kind


class Job:
    """The sequences of one call, and where what it wants of them gathers."""

    def __init__(self, sequences: list[IntArray], kinds: tuple[Kind, ...], deadline: float | None) -> None:
        self.sequences = sequences
        self.kinds = kinds
        self.deadline = deadline  # by time.monotonic(), of the last batch to start
        self.found: list[list[FloatArray]] = [[]] * len(sequences)  # for each an array for each kind
        self.left = len(sequences)
        self.tokens = sum(map(len, sequences))  # that wait
        self.done: Future[list[list[FloatArray]]] = Future()
        self.queued_at = time.perf_counter_ns()
        self.started_at = 0  # of its first batch
        # Indices, the longest last and the first to go: a text too large for memory fails early.
        self.waiting = dict.fromkeys(sorted(range(self.left), key=lambda index: len(sequences[index])))

    @property
    def queue_ns(self) -> int:
        """Nanoseconds until its first batch started."""
        return max(0, self.started_at - self.queued_at)
