"""The queue of one priority class, and which of its texts form the next batch.

The caller passes the time: there is no clock, thread or lock in here.
"""

import weakref
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable

from app.engine.errors import Overloaded
from app.engine.job import Job

# Tokens of one forward pass: more are not faster (measured: 256 to 2048). A longer text is its own batch.
TOKEN_BUDGET = 512
Batch = list[tuple[Job, int]]  # a sequence of a job, by its index


class Lane:
    """The queue of one priority class.

    Questions are computed in order of arrival. Texts of a corpus are batched with others of similar length,
    and calls take turns: after a batch, a call lets the others go first. A batch is for one model only.
    """

    def __init__(self, limit: float, turns: bool) -> None:
        self.limit = limit  # tokens that may be queued
        self.tokens = 0  # that are queued
        self.rate = 0.0  # recent tokens per second
        self.running = 0  # running batches
        self.jobs: deque[Job] = deque()  # the next one first
        self._turns = turns
        self._came = 0
        self._numbered: dict[int, Job] = {}  # by order of arrival
        # Every queued text as (model; tokens, or 0 without turns; job's number; index), sorted.
        self._texts: list[tuple[int, int, int, int]] = []
        self._giant: Callable[[], Job | None] = lambda: None  # admitted although over the limit

    @property
    def counted(self) -> float:
        """Queued tokens as the limit counts them: a giant counts as half the limit and leaves the rest."""
        giant = self._giant()
        return self.tokens - max(0, giant.tokens - self.limit / 2 if giant else 0)

    @property
    def full(self) -> bool:
        """Whether less room is left than for a batch (or an eighth of the limit, if that is less)."""
        return self.counted > self.limit - min(TOKEN_BUDGET, self.limit / 8)

    @property
    def drain_seconds(self) -> int:
        """Estimated seconds until the queue is empty, at least 1."""
        return max(1, round(self.tokens / self.rate)) if self.rate else 1

    def check(self, tokens: int) -> None:
        """Raise Overloaded if a call of this many tokens would be refused now."""
        if self.tokens and self.counted + tokens > self.limit:
            raise Overloaded(self.tokens, int(self.limit), self.drain_seconds)

    def add(self, job: Job, admitted: bool) -> None:
        if not admitted:
            self.check(job.tokens)
        if job.tokens > self.limit:
            self._giant = weakref.ref(job)
        job.number = self._came
        self._came += 1
        self.tokens += job.tokens
        self._numbered[job.number] = job
        self.jobs.append(job)
        for index in job.waiting:
            insort(self._texts, self._key(job, index))

    def drop(self, job: Job) -> None:
        if job in self.jobs:
            self.jobs.remove(job)
        self._numbered.pop(job.number, None)
        self.tokens -= job.tokens
        job.tokens = 0
        job.waiting.clear()
        self._texts = [text for text in self._texts if text[2] != job.number]

    def take(self, budget: int, now: float) -> Batch:
        """Take the longest text of the next call, and as many other texts, of any call, as fit the budget."""
        job = self.jobs[0]
        if self._turns:
            self.jobs.rotate(-1)
        text = bisect_left(self._texts, self._key(job, next(reversed(job.waiting))))
        first, end = self._around(text, budget)
        taken = self._texts[first:end]
        del self._texts[first:end]
        return [self._start(self._numbered[number], index, now) for *_, number, index in taken]

    def _key(self, job: Job, index: int) -> tuple[int, int, int, int]:
        return id(job.model), len(job.sequences[index]) if self._turns else 0, job.number, index

    def _around(self, text: int, budget: int) -> tuple[int, int]:
        """The slice of `_texts` for a batch around a text: equal keys first, then shorter, then longer."""
        model, key, number, index = self._texts[text]
        padding = self._numbered[number].model.padding
        longest = room = len(self._numbered[number].sequences[index])
        pairs = 0  # token pairs that are padding

        def fits(place: int) -> bool:
            nonlocal room, pairs
            if not 0 <= place < len(self._texts) or self._texts[place][0] != model:
                return False
            *_, number, index = self._texts[place]
            tokens = len(self._numbered[number].sequences[index])
            wasted = pairs + abs(longest**2 - tokens**2)
            if room + tokens > budget or padding.too_much(wasted, room + tokens):
                return False
            room, pairs = room + tokens, wasted
            return True

        first, end = text, text + 1
        while end < len(self._texts) and self._texts[end][1] == key and fits(end):
            end += 1
        while fits(first - 1):
            first -= 1
        while padding.start_tokens is None and fits(end):
            end += 1
        return first, end

    def _start(self, job: Job, index: int, now: float) -> tuple[Job, int]:
        if job.started_at is None:
            job.started_at = now
        del job.waiting[index]
        tokens = len(job.sequences[index])
        job.tokens -= tokens
        self.tokens -= tokens
        if not job.waiting:
            self.jobs.remove(job)
            del self._numbered[job.number]
        return job, index
