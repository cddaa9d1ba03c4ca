"""Decides what runs next: questions before corpora, calls in turns, and nobody starves.

The caller passes the time and what ran: there is no clock, thread or lock in here.
"""

import math
from collections.abc import Collection, Iterator

from app.engine.embeddings import Priority
from app.engine.job import Job
from app.engine.lane import TOKEN_BUDGET, Batch, Lane

# A call without a priority counts as a question up to this many tokens. A call that says it is interactive is
# believed up to a whole batch.
QUESTION_TOKENS = 64
# If an engine cannot pause for a question, a batch takes at most BATCH_SECONDS while questions come: until
# none has come for ASKING_SECONDS.
BATCH_SECONDS, ASKING_SECONDS = 0.25, 60.0
# The largest share of the time for questions while a corpus waits, and how many seconds of it they can save
# up. A person never uses that up; programs that ask without pause leave the corpus the larger part.
QUESTION_SHARE, SAVED_SECONDS = 0.4, 2.0
# The size of the queue for questions as a share of that for corpora; it holds at least a batch.
QUESTION_QUEUE = 1 / 8


def priority_of(tokens: int, asked: Priority | None) -> Priority:
    """The class of a call, by its number of tokens and by the class it asks for, if any."""
    most = TOKEN_BUDGET if asked == "interactive" else QUESTION_TOKENS
    return "interactive" if asked != "bulk" and tokens <= most else "bulk"


class Policy:
    """Questions go first, until they have used up their share of the time while a corpus waits.

    The share works like a savings account: each second adds QUESTION_SHARE of it, up to SAVED_SECONDS, and
    each batch of questions takes its time. So the corpus gets at least 1 - QUESTION_SHARE of the time.
    """

    def __init__(self, max_waiting: int | None = None, budget: int = TOKEN_BUDGET) -> None:
        limit = math.inf if max_waiting is None else max_waiting  # tokens
        self.lanes: dict[Priority, Lane] = {
            "interactive": Lane(max(TOKEN_BUDGET, limit * QUESTION_QUEUE), turns=False),
            "bulk": Lane(limit, turns=True),
        }
        self._budget = budget
        self._saved = SAVED_SECONDS
        self._saved_at = 0.0
        self._asked_at = -math.inf

    def add(self, job: Job, now: float, admitted: bool = False) -> None:
        """Queue a job. Raises Overloaded if the queue of its class has no room for it.

        If the queue is empty, a job of any size is accepted, and half of the room is left to others. An
        `admitted` job is always accepted, as it continues a call that has begun.
        """
        self.lanes[job.priority].add(job, admitted)
        if job.priority == "interactive":
            self._asked_at = now

    def drop(self, job: Job) -> None:
        """Remove what still waits of a job from the queue."""
        self.lanes[job.priority].drop(job)

    def waiting(self) -> Iterator[Job]:
        """Jobs with texts in the queue."""
        for lane in self.lanes.values():
            yield from lane.jobs

    def take(self, served: Collection[Priority], now: float) -> Batch:
        """Start the next batch of the classes that a thread serves; empty if none may start."""
        questions, corpora = self.lanes["interactive"], self.lanes["bulk"]
        if "interactive" in served and questions.jobs and not self.pause(now):
            questions.running += 1
            return questions.take(self._budget, now)
        if "bulk" in served and corpora.jobs:
            corpora.running += 1
            return corpora.take(self._bulk_budget(now), now)
        return []

    def pause(self, now: float) -> float:
        """Seconds until questions may go on, if they have used up their share and a corpus waits."""
        self._saved = min(SAVED_SECONDS, self._saved + QUESTION_SHARE * (now - self._saved_at))
        self._saved_at = now
        return max(0.0, -self._saved / QUESTION_SHARE) if self._contended else 0.0

    def ran(self, priority: Priority, tokens: int, seconds: float, at_a_time: int = 1) -> None:
        """Note how long a batch has taken; `at_a_time`: how many such batches run at the same time."""
        lane = self.lanes[priority]
        lane.running -= 1
        if priority == "interactive" and self._contended:
            self._saved = max(-SAVED_SECONDS, self._saved - seconds)
        rate = at_a_time * tokens / max(seconds, 1e-9)
        lane.rate = 0.9 * lane.rate + 0.1 * rate if lane.rate else rate

    @property
    def _contended(self) -> bool:
        corpora = self.lanes["bulk"]
        return bool(corpora.jobs or corpora.running)

    def _bulk_budget(self, now: float) -> int:
        """The most tokens of the next bulk batch. A batch that can pause for questions may be long."""
        rate = self.lanes["bulk"].rate
        if self.lanes["bulk"].jobs[0].model.preempt or not rate or now - self._asked_at > ASKING_SECONDS:
            return self._budget
        return min(self._budget, max(1, int(BATCH_SECONDS * rate)))
