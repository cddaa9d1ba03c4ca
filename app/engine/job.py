"""What one call asks of the batcher. Times are time.monotonic()."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from app.engine.embeddings import FloatArray, IntArray, Kind, Priority
from app.engine.errors import Abandoned, TooLate
from app.engine.model import Model

LOOK_SECONDS = 0.5  # how often to check that a client is still connected, at least


@dataclass
class Caller:
    """Who waits for a call, and until when."""

    priority: Priority | None = None  # None: decided by the call's size
    gone: Callable[[], bool] | None = None  # returns True once nobody waits any more
    deadline: float | None = None  # by which the call's last batch must start
    looked: float = 0.0

    def late(self, now: float) -> bool:
        return self.deadline is not None and self.deadline < now

    def check(self, now: float) -> None:
        """Raise TooLate after the deadline, Abandoned if nobody waits any more."""
        if self.late(now):
            raise TooLate
        if self.gone and now > self.looked + LOOK_SECONDS:
            self.looked = now
            if self.gone():
                raise Abandoned


class Job:
    """The sequences of one call, and its results so far."""

    def __init__(
        self,
        model: Model,
        sequences: list[IntArray],
        kinds: list[tuple[Kind, ...]],
        priority: Priority,
        now: float,
        caller: Caller | None = None,
    ) -> None:
        self.model = model
        self.sequences = sequences
        self.kinds = kinds  # wanted of each sequence
        self.priority: Priority = priority
        self.caller = caller or Caller()
        self.found: list[list[FloatArray]] = [[]] * len(sequences)  # per sequence, an array for each kind
        self.left = len(sequences)
        self.tokens = sum(map(len, sequences))  # not yet in a batch
        self.done: Future[list[list[FloatArray]]] = Future()
        self.number = -1  # order of arrival, given by the lane
        self.queued_at = now
        self.started_at: float | None = None  # when its first batch started
        # Indices by length. The longest is last and starts first: a text too large for memory fails early.
        self.waiting = dict.fromkeys(sorted(range(self.left), key=lambda index: len(sequences[index])))

    @property
    def queue_seconds(self) -> float:
        """The wait until its first batch started."""
        return self.started_at - self.queued_at if self.started_at is not None else 0.0
