"""Who is next: questions before corpora, each call in its turn, and nobody starved.

It is told the time and what ran; it has no clock, no thread and no lock of its own.
"""

import math
from collections.abc import Collection, Iterator

from app.engine.embeddings import Priority
from app.engine.job import Job
from app.engine.lane import TOKEN_BUDGET, Batch, Lane

# A call of up to so many tokens is taken for a question where it does not say what it is, and one that says
# so is believed up to a whole batch.
QUESTION_TOKENS = 64
# Where an engine cannot stop for a question, a batch takes at most so long while somebody asks: from a
# question until nobody has asked for a minute.
BATCH_SECONDS, ASKING_SECONDS = 0.25, 60.0
# Of the time, what questions get at most while a corpus waits, and how much of it they may save up: a person
# never uses that up, and several programs that ask without pause leave the corpus the larger part.
QUESTION_SHARE, SAVED_SECONDS = 0.4, 2.0
# Of the tokens that may wait: so many questions may wait besides, or a batch of them where that is more.
QUESTION_QUEUE = 1 / 8


def priority_of(tokens: int, asked: Priority | None) -> Priority:
    """The class of a call of so many tokens that asks for one, or leaves it to its size."""
    most = TOKEN_BUDGET if asked == "interactive" else QUESTION_TOKENS
    return "interactive" if asked != "bulk" and tokens <= most else "bulk"


class Policy:
    """Questions go first, until they have had their share of the time while a corpus waits.

    The share is saved up like money: QUESTION_SHARE of each second, at most SAVED_SECONDS, and each batch of
    questions is paid for. So the corpus has 1 - QUESTION_SHARE of the time at least, however many ask.
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
        """Queue a job. Raises Overloaded where the tokens that wait in its class leave no room for it.

        One that finds nothing waiting is let in however large it is, and half of the room is left to others;
        so is one that is `admitted`, as the rest of what began.
        """
        self.lanes[job.priority].add(job, admitted)
        if job.priority == "interactive":
            self._asked_at = now

    def drop(self, job: Job) -> None:
        """Take out of the queue what still waits of a job."""
        self.lanes[job.priority].drop(job)

    def waiting(self) -> Iterator[Job]:
        """Jobs of which something waits."""
        for lane in self.lanes.values():
            yield from lane.jobs

    def take(self, served: Collection[Priority], now: float) -> Batch:
        """The next batch of the classes that a thread serves, now under way; empty if none may start."""
        questions, corpora = self.lanes["interactive"], self.lanes["bulk"]
        if "interactive" in served and questions.jobs and not self.pause(now):
            questions.running += 1
            return questions.take(self._budget, now)
        if "bulk" in served and corpora.jobs:
            corpora.running += 1
            return corpora.take(self._bulk_budget(now), now)
        return []

    def pause(self, now: float) -> float:
        """Seconds until questions may go on, where they have had their share and a corpus waits."""
        self._saved = min(SAVED_SECONDS, self._saved + QUESTION_SHARE * (now - self._saved_at))
        self._saved_at = now
        return max(0.0, -self._saved / QUESTION_SHARE) if self._contended else 0.0

    def ran(self, priority: Priority, tokens: int, seconds: float, at_a_time: int = 1) -> None:
        """A batch of so many tokens has taken so long, and so many such run at a time."""
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
        """Of the next batch. One that stops for questions may be long."""
        rate = self.lanes["bulk"].rate
        if self.lanes["bulk"].jobs[0].model.preempt or not rate or now - self._asked_at > ASKING_SECONDS:
            return self._budget
        return min(self._budget, max(1, int(BATCH_SECONDS * rate)))
