"""Our application with a first-in, first-out queue, for comparison: `gunicorn benchmarks.fifo:app`."""

from app import create_app
from app.engine import policy
from app.engine.lane import Batch, Lane


def _take(lane: Lane, budget: int, now: float) -> Batch:
    """Take the texts of the oldest call, then those of the next, in their own order."""
    batch: Batch = []
    room = budget
    while lane.jobs:
        job = lane.jobs[0]
        index = min(job.waiting)
        tokens = len(job.sequences[index])
        if batch and tokens > room:
            break
        room -= tokens
        lane._texts.remove(lane._key(job, index))
        batch.append(lane._start(job, index, now))
    return batch


Lane.take = _take  # type: ignore[method-assign]
policy.QUESTION_TOKENS = 0  # all requests are in one class, unless they say otherwise
app = create_app()
