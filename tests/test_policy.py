"""The queue's policy: order, shares, and that nobody starves; without threads and without a clock."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from app.engine.errors import Overloaded
from app.engine.job import Job
from app.engine.lane import TOKEN_BUDGET
from app.engine.model import Model, Padding
from app.engine.policy import (
    ASKING_SECONDS,
    BATCH_SECONDS,
    QUESTION_SHARE,
    SAVED_SECONDS,
    Policy,
    priority_of,
)

RATE = 1000.0  # tokens a second of the engine below
START = 0.02  # seconds that a forward pass takes on top
ANY = ("interactive", "bulk")


def model(preempts, start_tokens=None):
    return Model(print, print if preempts else None, Padding(1024, start_tokens))


STOPS, GOES_ON = model(True), model(False)


def job(*lengths, at=0.0, priority=None, model=STOPS):
    sequences = [np.zeros(length, np.int64) for length in lengths]
    return Job(model, sequences, [("mean",)] * len(sequences), priority_of(sum(lengths), priority), at)


def lengths(batch):
    return [len(job.sequences[index]) for job, index in batch]


@pytest.mark.parametrize(
    ("tokens", "asked", "found"),
    [
        (64, None, "interactive"),
        (65, None, "bulk"),
        (5, "bulk", "bulk"),
        (512, "interactive", "interactive"),
        (513, "interactive", "bulk"),  # it would itself make questions wait
    ],
)
def test_the_class_of_a_call(tokens, asked, found):
    assert priority_of(tokens, asked) == found


def test_questions_go_first_and_together():
    queue = Policy()
    for call in (job(300, 300), job(20), job(400), job(9), job(24)):
        queue.add(call, 0.0)
    assert sorted(lengths(queue.take(ANY, 1.0))) == [9, 20, 24]
    assert lengths(queue.take(ANY, 1.0)) == [300]
    assert queue.take(("interactive",), 1.0) == []


def test_calls_of_a_class_take_turns():
    queue = Policy()
    padded = model(True, start_tokens=0.0)  # no two lengths share a batch
    first, second = job(500, 400, 300, model=padded), job(510, model=padded)
    queue.add(first, 0.0)
    queue.add(second, 0.0)
    assert [lengths(queue.take(ANY, 1.0)) for _ in range(4)] == [[500], [510], [400], [300]]


@pytest.mark.parametrize("admitted", [False, True])
def test_one_larger_than_the_limit_leaves_half_of_the_room_to_others(admitted):
    queue = Policy(max_waiting=2000)
    queue.add(job(*[500] * 40), 0.0, admitted)
    queue.add(job(900), 1.0)
    with pytest.raises(Overloaded):
        queue.add(job(200), 2.0)


def test_where_nothing_is_padded_any_lengths_fill_a_batch():
    queue = Policy()
    for call in (job(30, priority="bulk"), job(200, 100), job(150, 90)):
        queue.add(call, 0.0)
    assert sorted(lengths(queue.take(ANY, 0.0))) == [30, 90, 100, 150]
    assert lengths(queue.take(ANY, 0.0)) == [200]


def test_questions_that_use_up_their_share_wait_until_the_corpus_had_its_own():
    queue = Policy()
    queue.add(job(*[500] * 100), 0.0)
    for _ in range(100):
        queue.add(job(64), 0.0)
    assert queue.take(("bulk",), 0.0)
    now = 0.0
    while batch := queue.take(("interactive",), now):
        now += 1.0
        queue.ran("interactive", sum(lengths(batch)), 1.0)
    # Each second uses up one second and earns QUESTION_SHARE.
    assert now == pytest.approx(SAVED_SECONDS / (1 - QUESTION_SHARE), abs=1)
    pause = queue.pause(now)
    assert 0 < pause <= SAVED_SECONDS / QUESTION_SHARE
    assert not queue.take(("interactive",), now + 0.99 * pause)
    assert queue.take(("interactive",), now + 1.01 * pause)


def test_questions_among_themselves_have_no_share_to_use_up():
    queue = Policy()
    for second in range(100):
        queue.add(job(64), float(second))
        batch = queue.take(("interactive",), float(second))
        assert batch
        queue.ran("interactive", sum(lengths(batch)), 1.0)
    queue.add(job(500), 100.0)
    queue.add(job(9), 100.0)
    assert lengths(queue.take(ANY, 100.0)) == [9], "nor any debt when a corpus comes"


def test_where_batches_cannot_stop_they_are_short_while_somebody_asks():
    queue = Policy()
    queue.add(job(*[10] * 1000, model=GOES_ON), 0.0)
    queue.ran("bulk", 1000, 1.0)
    assert sum(lengths(queue.take(ANY, 1.0))) == 510, "nobody has asked"
    queue.add(job(9), 2.0)
    assert lengths(queue.take(ANY, 2.0)) == [9]
    short = BATCH_SECONDS * 1000
    assert sum(lengths(queue.take(ANY, 2.0 + ASKING_SECONDS))) == short
    assert sum(lengths(queue.take(ANY, 2.1 + ASKING_SECONDS))) == 510


def test_each_class_has_a_limit_of_its_own():
    queue = Policy(max_waiting=8192)
    queue.add(job(*[512] * 16), 0.0)
    assert {name for name, lane in queue.lanes.items() if lane.full} == {"bulk"}
    with pytest.raises(Overloaded, match="8192 tokens are waiting, the limit is 8192"):
        queue.add(job(100), 0.0)
    for _ in range(16):
        queue.add(job(64), 0.0)
    assert {name for name, lane in queue.lanes.items() if lane.full} == {"bulk", "interactive"}
    with pytest.raises(Overloaded, match="1024 tokens are waiting, the limit is 1024"):
        queue.add(job(64), 0.0)
    queue.add(job(64), 0.0, admitted=True)


def test_what_is_dropped_leaves_nothing_behind():
    queue = Policy(max_waiting=1000)
    calls = [job(300, 200), job(100), job(9)]
    for call in calls:
        queue.add(call, 0.0)
    queue.take(("bulk",), 0.0)
    for call in calls:
        queue.drop(call)
        queue.drop(call)
    assert not list(queue.waiting())
    assert not queue.take(ANY, 1.0)
    assert all(lane.tokens == 0 for lane in queue.lanes.values())


@dataclass
class Engine:
    """Simulates an engine that computes RATE tokens a second, one batch at a time, and records when.

    With `preempts`, a batch of a corpus pauses while questions are computed, then goes on.
    """

    queue: Policy
    preempts: bool
    now: float = 0.0
    corpus: list = field(default_factory=list)  # the current batch, and how many seconds it still takes
    left: float = 0.0
    began: float = 0.0
    slots: list = field(default_factory=list)  # (start, end, priority)
    done: dict = field(default_factory=dict)  # job -> when

    def run(self, calls, until):
        """Let calls arrive at their times, and compute until the time `until`."""
        calls = sorted(calls, key=lambda call: -call.queued_at)
        while self.now < until:
            while calls and calls[-1].queued_at <= self.now:
                call = calls.pop()
                self.queue.add(call, self.now)
            arrival = calls[-1].queued_at if calls else until
            served = ANY if not self.corpus else ("interactive",) if self.preempts else ()
            if served and (batch := self.queue.take(served, self.now)):
                seconds = START + sum(lengths(batch)) / RATE
                if batch[0][0].priority == "bulk":
                    self.corpus, self.left, self.began = batch, seconds, self.now
                else:
                    self.spend(seconds, "interactive")
                    self.end(batch, seconds)
                continue
            pause = self.queue.pause(self.now) if served else 0.0
            wake = min([arrival] + [self.now + pause + 1e-9] * (pause > 0))
            if self.corpus:
                self.spend(min(self.left, max(1e-9, wake - self.now)), "bulk")
                if self.left <= 1e-9:
                    batch, self.corpus = self.corpus, []
                    self.end(batch, self.now - self.began)
            else:
                self.now = max(self.now + 1e-9, wake)
        return self

    def spend(self, seconds, priority):
        self.slots.append((self.now, self.now + seconds, priority))
        self.now += seconds
        self.left -= seconds if priority == "bulk" else 0.0

    def end(self, batch, seconds):
        self.queue.ran(batch[0][0].priority, sum(lengths(batch)), seconds)
        for call, _ in batch:
            call.left -= 1
            if not call.left:
                self.done[call] = self.now


def arrivals(chance, seconds, rate, make):
    at, found = 0.0, []
    while (at := at + chance.expovariate(rate)) < seconds:
        found.append(make(at))
    return found


def question(chance, model=STOPS):
    return lambda at: job(chance.randint(6, 24), at=at, model=model)


def corpus(chance, model=STOPS):
    return lambda at: job(*(chance.randint(65, 400) for _ in range(32)), at=at, priority="bulk", model=model)


@pytest.mark.parametrize("preempts", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_question_now_and_then_waits_for_no_corpus(preempts, seed):
    """The corpora alone are more than the engine can compute; a question comes every two seconds."""
    chance = random.Random(seed)
    served = model(preempts)
    calls = arrivals(chance, 600, 0.5, question(chance, served))
    calls += arrivals(chance, 600, 0.3, corpus(chance, served))
    engine = Engine(Policy(), preempts).run(calls, 600)
    waits = [
        call.started_at - call.queued_at
        for call in calls
        if call.priority == "interactive" and call in engine.done
    ]
    assert len(waits) > 200
    longest = START + max(BATCH_SECONDS, 400 / RATE)  # a batch, or a text that is longer than one
    first = START + TOKEN_BUDGET / RATE  # nobody asked before this
    question_itself = START + 24 / RATE
    if preempts:
        assert max(waits) <= 2 * question_itself
    else:
        assert sorted(waits)[-2] <= longest + 2 * question_itself
        assert max(waits) <= first + 2 * question_itself


@pytest.mark.parametrize("preempts", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_flood_of_questions_leaves_a_corpus_its_share(preempts, seed):
    """Twice as many questions as could be computed, several thousand, and one corpus."""
    chance = random.Random(seed)
    served = model(preempts)
    flood = arrivals(chance, 120, 100, question(chance, served))
    alone = 120 * 0.5  # seconds of work
    big = job(*[250] * int(alone * RATE / 250), at=5.0, priority="bulk", model=served)
    engine = Engine(Policy(), preempts).run([*flood, big], 400)
    assert len(flood) > 5000
    assert big in engine.done
    most = (alone * 1.3) / (1 - QUESTION_SHARE) + 2 * SAVED_SECONDS / QUESTION_SHARE
    assert engine.done[big] - 5.0 <= most
    for start in range(6, int(engine.done[big]) - 20):  # in any twenty seconds
        window = range(start, start + 20)
        spent = sum(
            max(0.0, min(end, window[-1] + 1) - max(begin, window[0]))
            for begin, end, priority in engine.slots
            if priority == "interactive"
        )
        assert spent <= 20 * QUESTION_SHARE + 2 * SAVED_SECONDS + 1
    done = [call for call in engine.done if call.priority == "interactive"]
    starts = [call.started_at for call in sorted(done, key=lambda call: call.queued_at)]
    assert len(done) == len(flood), "and every question was answered in the end"
    assert starts == sorted(starts), "out of order"


@pytest.mark.parametrize("seed", range(3))
def test_everything_mixed_is_done_once_and_nothing_is_forgotten(seed):
    chance = random.Random(seed)
    models = [model(True), model(True)]  # an encoder and a reranker

    def call(at):
        return chance.choice([question, question, corpus])(chance, chance.choice(models))(at)

    calls = arrivals(chance, 300, 10, call)[:1500]
    calls = [call for call in calls if call.queued_at < 300]
    work = sum(sum(map(len, call.sequences)) for call in calls) / RATE
    engine = Engine(Policy(), True).run(calls, 300 + 3 * work)
    assert set(engine.done) == set(calls)
    assert all(call.left == 0 for call in calls)
    assert all(lane.tokens == 0 and lane.running == 0 for lane in engine.queue.lanes.values())
    bulk = sorted((call for call in calls if call.priority == "bulk"), key=lambda call: call.queued_at)
    # In turns: a call's first batch comes after at most one batch of each call before it.
    for place, call in enumerate(bulk):
        ahead = sum(other.started_at < call.started_at for other in bulk)
        assert ahead <= place + 32
