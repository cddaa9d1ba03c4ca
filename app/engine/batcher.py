"""Merges texts of concurrent calls into batches and runs them in its own threads."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

from app.engine.embeddings import (
    PRIORITIES,
    BatchStats,
    FloatArray,
    IntArray,
    Kind,
    Load,
    Priority,
    Timings,
)
from app.engine.errors import Abandoned, NotFinite, NotLoaded, TooLate
from app.engine.job import LOOK_SECONDS, Caller, Job
from app.engine.lane import Batch
from app.engine.model import Model
from app.engine.policy import Policy, priority_of

log = logging.getLogger(__name__)

# Added to LOOK_SECONDS for each job, as every check wakes a thread.
LOOK_EACH = 0.02


class Batcher:
    """Threads that run the models for every caller; `policy` says which texts are next.

    An idle batcher starts at once. Texts that arrive while a batch runs form the next batches.
    """

    def __init__(
        self,
        policy: Policy,
        preempts: bool = False,
        streams: int = 1,
        watch: Callable[[BatchStats], None] | None = None,
    ) -> None:
        """Run up to `streams` forward passes at a time; `watch` is called with each batch before it runs.

        `preempts`: forward passes can pause for questions, so questions get their own thread.
        """
        self._policy = policy
        self._watch = watch
        self._started: dict[int, float] = {}  # when each running pass started, by thread
        self._jobs: set[Job] = set()  # not done yet
        self._streams = streams
        self._changed = threading.Condition()
        self._closed = False
        self._no_question = threading.Event()
        self._no_question.set()
        served: list[tuple[Priority, ...]] = [("bulk",) if preempts else PRIORITIES] * streams
        if preempts:
            served.append(("interactive",))
        self._threads = [
            threading.Thread(target=self._run, args=(priorities,), name="batcher", daemon=True)
            for priorities in served
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        model: Model,
        sequences: list[IntArray],
        kinds: list[tuple[Kind, ...]],
        caller: Caller | None = None,
        admitted: bool = False,
    ) -> Job:
        """Queue sequences; `job.done` resolves to one list per sequence, with one array per kind.

        Raises Overloaded as Policy.add does, and NotLoaded once the batcher is closed. `job.done` fails with
        TooLate if the job's last batch has not started by the caller's deadline.
        """
        caller = caller or Caller()
        priority = priority_of(sum(map(len, sequences)), caller.priority)
        job = Job(model, sequences, kinds, priority, time.monotonic(), caller)
        if not any(kinds):
            job.done.set_result(job.found)
            return job
        with self._changed:
            if self._closed:
                raise NotLoaded("the encoder is closed")
            self._policy.add(job, job.queued_at, admitted)
            self._jobs.add(job)
            self._changed.notify_all()
        return job

    def compute(
        self,
        model: Model,
        sequences: list[IntArray],
        kinds: list[tuple[Kind, ...]],
        caller: Caller,
        admitted: bool = False,
    ) -> tuple[list[list[FloatArray]], Timings]:
        """Submit, and wait for the result; raises NotFinite if it contains NaN or infinity."""
        start = time.perf_counter_ns()
        job = self.submit(model, sequences, kinds, caller, admitted)
        found = self.wait(job)
        queued = round(1e9 * job.queue_seconds)
        forward = time.perf_counter_ns() - start - queued
        broken = [
            index
            for index, arrays in enumerate(found)
            if not all(np.isfinite(array).all() for array in arrays)
        ]
        if broken:
            raise NotFinite(broken)
        return found, Timings(queue=queued, forward=max(0, forward))

    def check(self, tokens: int, caller: Caller) -> None:
        """Raise Overloaded if a call of at least this many tokens would be refused now."""
        self._policy.lanes[priority_of(tokens, caller.priority)].check(tokens)

    def wait(self, job: Job) -> list[list[FloatArray]]:
        """Wait for a job; once its caller is gone, drops what has not started and raises Abandoned."""
        gone = job.caller.gone
        while True:
            try:
                return job.done.result(max(LOOK_SECONDS, LOOK_EACH * len(self._jobs)) if gone else None)
            except TimeoutError:
                if job.done.done():  # it ended just now, or the forward pass raised TimeoutError
                    return job.done.result()
                if gone and gone():
                    self._drop(job, Abandoned())

    def give_way(self) -> None:
        """Wait while a question is computed, at most LOOK_SECONDS: for other work that can wait."""
        self._no_question.wait(LOOK_SECONDS)

    @property
    def load(self) -> Load:
        """The current load."""
        alive = all(thread.is_alive() for thread in self._threads) and not self._closed
        started = list(self._started.values())
        lanes = self._policy.lanes.items()
        return Load(
            ready=alive,
            broken=not alive,
            busy_seconds=time.monotonic() - min(started) if started else 0.0,
            waiting={priority: lane.tokens for priority, lane in lanes},
            full=frozenset(priority for priority, lane in lanes if lane.full),
            drain_seconds={priority: lane.drain_seconds for priority, lane in lanes},
        )

    def close(self) -> None:
        """Finish the running batches, fail what still waits, and end the threads."""
        self._end(self._policy.waiting(), "the encoder was closed before this text's turn")
        for thread in self._threads:
            thread.join()

    def _end(self, jobs: Iterable[Job], why: str) -> None:
        """Accept no more jobs, and fail these."""
        with self._changed:
            self._closed = True
            failed = list(jobs)
            self._changed.notify_all()
        for job in failed:
            self._drop(job, NotLoaded(why))

    def _run(self, served: tuple[Priority, ...]) -> None:
        try:
            while not self._closed:
                self._work(served)
        except BaseException:  # most likely out of memory; no caller may wait for ever
            self._end(self._jobs, "the thread that computes has ended")
            log.exception("the thread that computes has ended")

    def _work(self, served: tuple[Priority, ...]) -> None:
        """Run the next batch, or wait until there may be one."""
        with self._changed:
            now = time.monotonic()
            late = [job for job in self._policy.waiting() if job.caller.late(now)]
            batch = self._policy.take(served, now) if not late else []
            if not late and not batch and not self._closed:
                self._changed.wait(self._policy.pause(now) or None)
        for job in late:
            self._drop(job, TooLate())
        if batch:
            self._compute(batch, now)

    def _compute(self, batch: Batch, now: float) -> None:
        distinct: dict[bytes, int] = {}  # equal texts are computed once
        sequences: list[IntArray] = []
        wanted: dict[tuple[int, Kind], int] = {}
        answers: list[list[int]] = []
        for job, index in batch:
            sequence = job.sequences[index]
            place = distinct.setdefault(sequence.tobytes(), len(sequences))
            if place == len(sequences):
                sequences.append(sequence)
            answers.append([wanted.setdefault((place, kind), len(wanted)) for kind in job.kinds[index]])
        self._tell(batch, [len(sequence) for sequence in sequences], now)
        try:
            found = self._timed(batch[0][0], sequences, list(wanted))
        except Exception as error:
            log.exception("a batch of %d texts failed", len(batch))
            for job, _ in batch:
                self._drop(job, error)
            return
        with self._changed:
            for (job, index), places in zip(batch, answers, strict=True):
                job.found[index] = [found[place] for place in places]
                job.left -= 1
                if not job.left:
                    self._jobs.discard(job)
                    if not job.done.done():  # abandoned meanwhile
                        job.done.set_result(job.found)

    def _timed(
        self, first: Job, sequences: list[IntArray], wanted: list[tuple[int, Kind]]
    ) -> list[FloatArray]:
        """Run the forward pass of a batch's model, and note how long it takes."""
        priority, model = first.priority, first.model
        forward = model.preempt if priority == "interactive" and model.preempt else model.forward
        start = time.monotonic()
        thread = threading.get_ident()
        self._started[thread] = start
        if priority == "interactive":
            self._no_question.clear()
        try:
            return forward(sequences, wanted)
        finally:
            del self._started[thread]
            if priority == "interactive":
                self._no_question.set()
            with self._changed:
                tokens, seconds = sum(map(len, sequences)), time.monotonic() - start
                self._policy.ran(priority, tokens, seconds, self._streams if priority == "bulk" else 1)
                self._changed.notify_all()

    def _tell(self, batch: Batch, lengths: list[int], now: float) -> None:
        """Call `watch` for a batch that starts now."""
        if not self._watch:
            return
        started = {job for job, _ in batch if job.started_at == now}
        waits = [job.queue_seconds for job in started]
        padded = batch[0][0].model.padding.padded(lengths)
        priority = batch[0][0].priority
        try:
            self._watch(BatchStats(priority, len(batch), sum(lengths), padded, waits))
        except Exception:
            log.exception("the batch observer failed")

    def _drop(self, job: Job, error: Exception) -> None:
        """Remove what still waits of a job from the queue, and fail the job."""
        with self._changed:
            self._policy.drop(job)
            self._jobs.discard(job)
            self._changed.notify_all()
            if not job.done.done():
                job.done.set_exception(error)
