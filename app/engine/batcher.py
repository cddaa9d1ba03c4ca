"""Merges what concurrent calls ask for into batches of similar length under a token budget."""

import logging
import math
import threading
import time
import weakref
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable

from app.engine.embeddings import BatchStats, FloatArray, IntArray, Kind
from app.engine.errors import Abandoned, NotLoaded, Overloaded, TooLate
from app.engine.job import Job

log = logging.getLogger(__name__)

# Tokens of one forward: more are no faster by measurement (256 to 2048), and others wait longer. A longer
# text is a batch of its own.
TOKEN_BUDGET = 512
# Where an engine computes attention as if every text were as long as the longest: attention over this many
# token pairs, for each number in a token's state, takes about as long as everything else for one token.
PAIRS_PER_TOKEN = 3
# What a batch may waste in that way: this share of its tokens, or what starting another would cost.
WASTE_SHARE = 0.1
# Between two looks whether a job's client is there: at least, and for each job, as a look wakes a thread.
LOOK_SECONDS, LOOK_EACH = 0.5, 0.02

# Distinct sequences b x (t,), wanted r x (index of a sequence, kind) -> r arrays, shaped as for Kind
Forward = Callable[[list[IntArray], list[tuple[int, Kind]]], list[FloatArray]]


class Batcher:
    """One thread, or one for each stream, that runs the forward for every caller.

    An idle batcher starts at once; what arrives meanwhile forms the next batches. Calls take turns: each
    batch is built around the longest waiting text of the call whose turn it is and filled with any call's
    that are shorter, down to those whose padding would cost too much where the engine pads. So a short call
    waits for about one batch per call ahead of it.
    """

    def __init__(
        self,
        forward: Forward,
        width: int,
        token_budget: int = TOKEN_BUDGET,
        max_waiting: int | None = None,
        watch: Callable[[BatchStats], None] | None = None,
        streams: int = 1,
        start_tokens: float | None = 15,
    ) -> None:
        """`watch` is told of every batch before it is computed; `streams` are computed at a time.

        `start_tokens`: how many tokens could be computed in the time that starting a batch takes, where
        the forward pads attention; None where it does not and any texts go together.
        """
        self._forward = forward
        self._pairs_per_token = PAIRS_PER_TOKEN * width
        self._token_budget = token_budget
        self._max_waiting = math.inf if max_waiting is None else max_waiting  # tokens
        self._watch = watch
        self._start_tokens = start_tokens
        self._waiting = 0  # tokens
        self._giant: Callable[[], Job | None] = lambda: None  # let in although larger than max_waiting
        self._started: dict[int, float] = {}  # by time.monotonic(), of the forwards under way
        self._rate = 0.0  # tokens a second, of late
        self._turns: deque[Job] = deque()
        self._lengths: list[tuple[int, int, int]] = []  # sorted (tokens, job's id, index) of all that wait
        self._jobs: dict[int, Job] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name="batcher", daemon=True) for _ in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        sequences: list[IntArray],
        kinds: tuple[Kind, ...],
        deadline: float | None = None,
        admitted: bool = False,
    ) -> Job:
        """Queue sequences; `job.done` resolves to a list for each, in order: an array for each kind.

        Raises Overloaded where the tokens that wait already leave no room for these. A call that finds
        nothing waiting is let in however large it is, and half of the room is left to others; so is one
        that is `admitted`, as the rest of what began. `job.done`
        fails with TooLate for what has not started by `deadline`, a time.monotonic().
        """
        job = Job(sequences, kinds, deadline)
        if not sequences or not kinds:
            job.done.set_result(job.found)
            return job
        with self._changed:
            if self._closed:
                raise NotLoaded("the encoder is closed")
            if not admitted and self._counted + job.tokens > self._max_waiting:
                if self._waiting:
                    raise Overloaded(self._waiting, int(self._max_waiting), self.drain_seconds)
                self._giant = weakref.ref(job)
            self._waiting += job.tokens
            self._jobs[id(job)] = job
            self._turns.append(job)
            for index in job.waiting:
                insort(self._lengths, (len(sequences[index]), id(job), index))
            self._changed.notify_all()
        return job

    def wait(self, job: Job, gone: Callable[[], bool] | None = None) -> list[list[FloatArray]]:
        """The result of a job; Abandoned once `gone` says so, and what had not started is dropped."""
        while True:
            try:
                return job.done.result(max(LOOK_SECONDS, LOOK_EACH * len(self._turns)) if gone else None)
            except TimeoutError:
                if job.done.done():  # just now, or it is the forward's own
                    return job.done.result()
                if gone and gone():
                    self._drop(job, Abandoned("the client went away before its answer"))

    @property
    def waiting(self) -> int:
        return self._waiting  # tokens

    @property
    def _counted(self) -> float:
        """Tokens that wait, as the limit counts them."""
        giant = self._giant()
        return self._waiting - max(0, giant.tokens - self._max_waiting / 2 if giant else 0)

    @property
    def drain_seconds(self) -> int:
        """About how long what waits now will take, at least 1."""
        return max(1, round(self._waiting / self._rate)) if self._rate else 1

    @property
    def full(self) -> bool:
        """Whether as many tokens wait as may, but for less than a batch."""
        return self._counted > self._max_waiting - min(self._token_budget, self._max_waiting / 8)

    @property
    def alive(self) -> bool:
        """Whether every thread is there to compute."""
        return all(thread.is_alive() for thread in self._threads) and not self._closed

    @property
    def busy_seconds(self) -> float:
        """How long the oldest forward under way has taken so far, 0 if there is none."""
        return time.monotonic() - min(started) if (started := list(self._started.values())) else 0.0

    def close(self) -> None:
        """Finish the batches under way, fail what waits, and end the threads."""
        self._end(self._turns, "the encoder was closed before this text's turn")
        for thread in self._threads:
            thread.join()

    def _end(self, jobs: Iterable[Job], why: str) -> None:
        """Take nothing more, and fail these."""
        with self._changed:
            self._closed = True
            failed = list(jobs)
            self._changed.notify_all()
        for job in failed:
            self._drop(job, NotLoaded(why))

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:  # most likely there is no memory; nobody may wait for what never comes
            self._end(self._jobs.values(), "the thread that computes has ended")
            log.exception("the thread that computes has ended")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._turns and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                now = time.monotonic()
                late = [job for job in self._turns if job.deadline is not None and job.deadline < now]
                batch = self._next_batch() if not late else []
            for job in late:
                self._drop(job, TooLate("the request waited longer than it may"))
            if batch:
                self._compute(batch)
            late, batch = [], []  # or their arrays would stay until the next

    def _next_batch(self) -> list[tuple[Job, int]]:
        """Take the next batch out of the queue; the lock is held."""
        job = self._turns[0]
        self._turns.rotate(-1)
        index = next(reversed(job.waiting))
        longest = room = len(job.sequences[index])
        first = bisect_left(self._lengths, (longest, id(job), index))
        end = first + 1
        while (
            end < len(self._lengths)
            and self._lengths[end][0] == longest
            and room + longest <= self._token_budget
        ):
            end += 1
            room += longest
        waste = 0.0
        while first > 0:
            tokens = self._lengths[first - 1][0]
            room += tokens
            waste += (longest**2 - tokens**2) / self._pairs_per_token
            too_much = self._start_tokens is not None and waste > max(self._start_tokens, WASTE_SHARE * room)
            if too_much or room > self._token_budget:
                break
            first -= 1
        taken = self._lengths[first:end]
        del self._lengths[first:end]
        now = time.perf_counter_ns()
        batch: list[tuple[Job, int]] = []
        for tokens, job_id, index in taken:
            job = self._jobs[job_id]
            job.started_at = job.started_at or now
            del job.waiting[index]
            job.tokens -= tokens
            self._waiting -= tokens
            if not job.waiting:
                self._turns.remove(job)
            batch.append((job, index))
        return batch

    def _compute(self, batch: list[tuple[Job, int]]) -> None:
        distinct: dict[bytes, int] = {}  # a text asked for twice is computed once
        sequences: list[IntArray] = []
        wanted: dict[tuple[int, Kind], int] = {}
        answers: list[list[int]] = []
        for job, index in batch:
            sequence = job.sequences[index]
            place = distinct.setdefault(sequence.tobytes(), len(sequences))
            if place == len(sequences):
                sequences.append(sequence)
            answers.append([wanted.setdefault((place, kind), len(wanted)) for kind in job.kinds])
        jobs = {id(job): job for job, _ in batch}.values()
        if self._watch:
            lengths = [len(sequence) for sequence in sequences]
            try:
                self._watch(BatchStats(len(batch), sum(lengths), self._padded(lengths)))
            except Exception:
                log.exception("a batch could not be told of")
        start = time.perf_counter()
        thread = threading.get_ident()
        self._started[thread] = time.monotonic()
        try:
            found = self._forward(sequences, list(wanted))
        except Exception as error:
            log.exception("a batch of %d texts failed", len(batch))
            for job in jobs:
                self._drop(job, error)
            return
        finally:
            del self._started[thread]
        rate = len(self._threads) * sum(map(len, sequences)) / (time.perf_counter() - start)
        with self._changed:
            self._rate = 0.9 * self._rate + 0.1 * rate if self._rate else rate
            for (job, index), places in zip(batch, answers, strict=True):
                job.found[index] = [found[place] for place in places]
                job.left -= 1
            for job in jobs:
                if not job.left:
                    self._jobs.pop(id(job), None)
                    if not job.done.done():  # abandoned meanwhile
                        job.done.set_result(job.found)

    def _padded(self, lengths: list[int]) -> int:
        return sum(lengths) if self._start_tokens is None else len(lengths) * max(lengths)

    def _drop(self, job: Job, error: Exception) -> None:
        """Take what still waits of a job out of the queue and fail it."""
        with self._changed:
            if job in self._turns:
                self._turns.remove(job)
            self._waiting -= job.tokens
            job.tokens = 0
            job.waiting.clear()
            self._lengths = [entry for entry in self._lengths if entry[1] != id(job)]
            self._jobs.pop(id(job), None)
            if not job.done.done():
                job.done.set_exception(error)
