"""Batches: sorted, within the budget, fair, and their failures contained."""

import threading

import numpy as np
import pytest

from app.engine.batcher import Batcher
from app.engine.errors import NotLoaded


class Recorder:
    """A forward that keeps what it was given and waits for leave."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.leave = threading.Event()
        self.leave.set()
        self.entered = threading.Event()
        self.fails_on = 0

    def __call__(self, sequences):
        self.batches.append([len(sequence) for sequence in sequences])
        self.entered.set()
        assert self.leave.wait(10)
        if self.fails_on in self.batches[-1]:
            raise RuntimeError("this length fails")
        return [np.repeat(sequence[:, None], 2, axis=1).astype(np.float32) for sequence in sequences]


@pytest.fixture
def forward():
    return Recorder()


@pytest.fixture
def batcher(forward):
    batcher = Batcher(forward, token_budget=100)
    yield batcher
    forward.leave.set()
    batcher.close()


def sequences(*lengths):
    return [np.full(length, index) for index, length in enumerate(lengths)]


def first_row(hidden):
    return hidden[0]


def result(job):
    return job.done.result(timeout=10)


def test_results_come_in_the_order_of_the_texts(batcher):
    lengths = np.random.default_rng(0).integers(1, 90, 50)
    rows = result(batcher.submit(sequences(*lengths), first_row))
    assert [row[0] for row in rows] == list(range(50))


def test_batches_are_sorted_and_within_the_budget(batcher, forward):
    lengths = np.random.default_rng(0).integers(1, 90, 200)
    result(batcher.submit(sequences(*lengths), first_row))
    assert sorted(length for batch in forward.batches for length in batch) == sorted(lengths)
    longest = [max(batch) for batch in forward.batches]
    assert longest == sorted(longest, reverse=True)
    for batch in forward.batches:
        assert max(batch) * len(batch) <= 100
    computed = sum(max(batch) * len(batch) for batch in forward.batches)
    assert sum(lengths) / computed > 0.95


def test_a_text_over_the_budget_is_a_batch_of_its_own(batcher, forward):
    result(batcher.submit(sequences(5, 300, 5), first_row))
    assert forward.batches == [[300], [5, 5]]


def test_nothing_to_do_is_done_at_once(batcher, forward):
    assert result(batcher.submit([], first_row)) == []
    assert forward.batches == []


def test_what_arrives_meanwhile_forms_one_batch(batcher, forward):
    forward.leave.clear()
    jobs = [batcher.submit(sequences(9), first_row)]
    assert forward.entered.wait(10)
    jobs += [batcher.submit(sequences(10), first_row) for _ in range(5)]
    forward.leave.set()
    for job in jobs:
        result(job)
    assert forward.batches == [[9], [10] * 5]


def test_a_short_call_waits_for_one_batch_of_a_huge_one(batcher, forward):
    forward.leave.clear()
    huge = batcher.submit(sequences(*[50] * 200), first_row)
    assert forward.entered.wait(10)
    short = batcher.submit(sequences(3), first_row)
    forward.leave.set()
    result(short)
    result(huge)
    assert forward.batches.index([3]) <= 2


def test_a_failure_fails_only_the_calls_in_that_batch(batcher, forward):
    forward.leave.clear()
    forward.fails_on = 50
    blocker = batcher.submit(sequences(4), first_row)
    assert forward.entered.wait(10)
    good, bad = batcher.submit(sequences(20, 21), first_row), batcher.submit(sequences(50, 90), first_row)
    forward.leave.set()
    assert len(result(good)) == 2
    assert len(result(blocker)) == 1
    with pytest.raises(RuntimeError, match="this length fails"):
        result(bad)
    assert len(result(batcher.submit(sequences(7), first_row))) == 1


def test_a_failed_calls_other_texts_are_not_computed(batcher, forward):
    forward.fails_on = 90
    with pytest.raises(RuntimeError):
        result(batcher.submit(sequences(90, 5, 6), first_row))
    result(batcher.submit(sequences(40), first_row))
    assert forward.batches == [[90], [40]]


def test_closing_fails_what_waits(forward):
    batcher = Batcher(forward, token_budget=100)
    forward.leave.clear()
    under_way = batcher.submit(sequences(60), first_row)
    assert forward.entered.wait(10)
    waiting = batcher.submit(sequences(60), first_row)
    closer = threading.Thread(target=batcher.close)
    closer.start()
    forward.leave.set()
    closer.join(10)
    assert len(result(under_way)) == 1
    with pytest.raises(NotLoaded):
        result(waiting)
    with pytest.raises(NotLoaded):
        batcher.submit(sequences(1), first_row)
