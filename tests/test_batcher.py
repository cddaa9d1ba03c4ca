"""Batches are sorted by length, within the budget and fair, and a failure affects only its own batch."""

import threading
import time

import numpy as np
import pytest

from app.engine.batcher import Batcher
from app.engine.errors import Abandoned, NotLoaded, Overloaded, TooLate
from app.engine.job import Caller
from app.engine.model import Model, Padding
from app.engine.policy import Policy


class Recorder:
    """A forward pass that records its input and waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.leave = threading.Event()
        self.leave.set()
        self.entered = threading.Event()
        self.fails_on = 0

    def __call__(self, sequences, wanted):
        self.batches.append([len(sequence) for sequence in sequences])
        self.entered.set()
        assert self.leave.wait(10)
        if self.fails_on in self.batches[-1]:
            raise RuntimeError("this length fails")
        return [np.array([sequences[index][0], kind == "cls"], np.float32) for index, kind in wanted]


def policy(max_waiting=None):
    return Policy(max_waiting, budget=100)


class OneModel(Batcher):
    """A batcher for one model, where all sequences of a job want the same outputs."""

    def __init__(self, forward, policy, preempt=None, **options):
        super().__init__(policy, preempts=preempt is not None, **options)
        self.model = Model(forward, preempt, Padding(width=64, start_tokens=15))

    def submit(self, sequences, kinds, *call, **options):
        return super().submit(self.model, sequences, [kinds] * len(sequences), *call, **options)


def bulk(deadline=None):
    return Caller("bulk", deadline=deadline)


@pytest.fixture
def forward():
    return Recorder()


@pytest.fixture
def batcher(forward):
    batcher = OneModel(forward, policy())
    yield batcher
    forward.leave.set()
    batcher.close()


def sequences(*lengths):
    return [np.full(length, index) for index, length in enumerate(lengths)]


def result(job):
    return job.done.result(timeout=10)


def test_results_come_in_the_order_of_the_texts(batcher):
    lengths = np.random.default_rng(0).integers(1, 90, 50)
    rows = result(batcher.submit(sequences(*lengths), ("mean",), bulk()))
    assert [arrays[0][0] for arrays in rows] == list(range(50))


def test_batches_are_sorted_and_within_the_budget(batcher, forward):
    lengths = np.random.default_rng(0).integers(1, 90, 200)
    result(batcher.submit(sequences(*lengths), ("mean",), bulk()))
    assert sorted(length for batch in forward.batches for length in batch) == sorted(lengths)
    longest = [max(batch) for batch in forward.batches]
    assert longest == sorted(longest, reverse=True)
    for batch in forward.batches:
        assert sum(batch) <= 100
        longest = max(batch)
        # Attention is computed as if all were as long as the longest.
        waste = sum(longest**2 - length**2 for length in batch) / (3 * 64)
        assert waste <= max(15, 0.1 * sum(batch))


def test_a_text_over_the_budget_is_a_batch_of_its_own(batcher, forward):
    result(batcher.submit(sequences(5, 300, 5), ("mean",), bulk()))
    assert forward.batches == [[300], [5, 5]]


def test_nothing_to_do_is_done_at_once(batcher, forward):
    assert result(batcher.submit([], ("mean",), bulk())) == []
    assert forward.batches == []


def test_what_arrives_meanwhile_forms_one_batch(batcher, forward):
    forward.leave.clear()
    jobs = [batcher.submit(sequences(9), ("mean",), bulk())]
    assert forward.entered.wait(10)
    jobs += [batcher.submit([np.full(10, number)], ("mean",), bulk()) for number in range(5)]
    forward.leave.set()
    for job in jobs:
        result(job)
    assert forward.batches == [[9], [10] * 5]


def test_a_question_waits_for_one_batch_of_a_corpus(batcher, forward):
    forward.leave.clear()
    huge = batcher.submit(sequences(*[50] * 200), ("mean",), bulk())
    assert forward.entered.wait(10)
    short = batcher.submit(sequences(3), ("mean",))
    forward.leave.set()
    result(short)
    result(huge)
    assert forward.batches.index([3]) == 1


def test_a_question_does_not_wait_where_the_engine_can_stop(forward):
    asked = Recorder()
    batcher = OneModel(forward, policy(), preempt=asked)
    forward.leave.clear()
    huge = batcher.submit(sequences(*[50] * 20), ("mean",), bulk())
    assert forward.entered.wait(10)
    assert len(result(batcher.submit(sequences(3), ("mean",)))) == 1
    assert asked.batches == [[3]]
    assert len(forward.batches) == 1, "the batch under way has not ended"
    forward.leave.set()
    assert len(result(huge)) == 20
    batcher.close()


def test_other_work_gives_way_to_a_question_under_way(forward):
    batcher = OneModel(forward, policy(), preempt=forward)
    forward.leave.clear()
    question = batcher.submit(sequences(3), ("mean",))
    assert forward.entered.wait(10)
    gave_way = threading.Event()
    threading.Thread(target=lambda: (batcher.give_way(), gave_way.set())).start()
    assert not gave_way.wait(0.1)
    forward.leave.set()
    assert gave_way.wait(0.3), "it was not told that the question is done"
    result(question)
    batcher.close()


def test_who_watches_is_told_how_long_each_class_waited(forward):
    seen = []
    batcher = OneModel(forward, policy(), watch=seen.append)
    forward.leave.clear()
    jobs = [batcher.submit(sequences(60, 60), ("mean",), bulk())]
    assert forward.entered.wait(10)
    jobs.append(batcher.submit(sequences(3), ("mean",)))
    time.sleep(0.05)
    forward.leave.set()
    for job in jobs:
        result(job)
    batcher.close()
    assert [(batch.priority, len(batch.waits)) for batch in seen] == [
        ("bulk", 1),
        ("interactive", 1),
        ("bulk", 0),
    ]
    assert 0.05 <= seen[1].waits[0] < 10


def test_a_client_that_has_gone_is_noticed(batcher, forward):
    forward.leave.clear()
    batcher.submit(sequences(60), ("mean",), bulk())
    assert forward.entered.wait(10)
    job = batcher.submit(sequences(60), ("mean",), Caller("bulk", gone=lambda: True))
    with pytest.raises(Abandoned):
        batcher.wait(job)
    assert batcher.load.waiting["bulk"] == 0


def test_the_same_text_is_computed_once(batcher, forward):
    forward.leave.clear()
    blocker = batcher.submit(sequences(60), ("mean",), bulk())
    assert forward.entered.wait(10)
    one, other = (
        batcher.submit([np.full(8, 7)] * 3, ("mean",), bulk()),
        batcher.submit([np.full(8, 7)], ("cls",), bulk()),
    )
    forward.leave.set()
    np.testing.assert_array_equal(result(one), [[[7, 0]]] * 3)
    np.testing.assert_array_equal(result(other), [[[7, 1]]])
    result(blocker)
    assert forward.batches == [[60], [8]]


def test_more_tokens_than_may_wait_are_refused_at_once(forward):
    batcher = OneModel(forward, policy(max_waiting=50))
    forward.leave.clear()
    alone = batcher.submit(sequences(80), ("mean",), bulk())  # nothing waits: admitted, however large
    assert forward.entered.wait(10)
    waiting = batcher.submit(sequences(30, 10), ("mean",), bulk())
    with pytest.raises(Overloaded, match="40 tokens are waiting, the limit is 50") as error:
        batcher.submit(sequences(11), ("mean",), bulk())
    assert error.value.seconds >= 1
    room = batcher.submit(sequences(10), ("mean",), bulk())
    forward.leave.set()
    assert [len(result(job)) for job in (alone, waiting, room)] == [1, 2, 1]
    assert len(result(batcher.submit(sequences(50), ("mean",), bulk()))) == 1
    batcher.close()


def test_what_has_begun_is_not_refused_half_way(forward):
    batcher = OneModel(forward, policy(max_waiting=50))
    forward.leave.clear()
    jobs = [batcher.submit(sequences(60), ("mean",), bulk())]
    assert forward.entered.wait(10)
    jobs.append(batcher.submit(sequences(50), ("mean",), bulk()))
    with pytest.raises(Overloaded):
        batcher.submit(sequences(5), ("mean",), bulk())
    jobs.append(batcher.submit(sequences(5), ("mean",), bulk(), admitted=True))
    forward.leave.set()
    assert [len(result(job)) for job in jobs] == [1, 1, 1]
    batcher.close()


def test_who_watches_and_fails_stops_nothing(forward):
    def watch(batch):
        raise OSError("too many open files")

    batcher = OneModel(forward, policy(), watch=watch)
    assert [len(result(batcher.submit(sequences(5), ("mean",), bulk()))) for _ in range(2)] == [1, 1]
    assert batcher.load.ready
    batcher.close()


def test_a_result_that_comes_as_the_wait_ends_is_taken(batcher, monkeypatch):
    job = batcher.submit(sequences(5), ("mean",), Caller(gone=lambda: False))
    expected = result(job)
    waits = []

    def wait(timeout=None):
        waits.append(timeout)
        if len(waits) == 1:
            raise TimeoutError
        return expected

    monkeypatch.setattr(job.done, "result", wait)
    assert batcher.wait(job) is expected
    assert len(waits) == 2


def test_a_call_larger_than_all_that_may_wait_leaves_room_for_others(forward):
    batcher = OneModel(forward, policy(max_waiting=200))
    forward.leave.clear()
    giant = batcher.submit(sequences(*[50] * 20), ("mean",), bulk())
    assert forward.entered.wait(10)
    assert not batcher.load.full
    small = batcher.submit(sequences(99), ("mean",), bulk())
    with pytest.raises(Overloaded):
        batcher.submit(sequences(2), ("mean",), bulk())
    forward.leave.set()
    assert [len(result(job)) for job in (giant, small)] == [20, 1]
    assert batcher.load.waiting == {"interactive": 0, "bulk": 0}
    batcher.close()


def test_what_waited_too_long_is_not_computed(batcher, forward):
    forward.leave.clear()
    blocker = batcher.submit(sequences(60), ("mean",), bulk())
    assert forward.entered.wait(10)
    late = batcher.submit(sequences(9, 9), ("mean",), bulk(time.monotonic() - 1))
    patient = batcher.submit(sequences(20), ("mean",), bulk(time.monotonic() + 60))
    forward.leave.set()
    with pytest.raises(TooLate):
        result(late)
    assert len(result(blocker)) == len(result(patient)) == 1
    assert forward.batches == [[60], [20]]


def test_a_failure_fails_only_the_calls_in_that_batch(batcher, forward):
    forward.leave.clear()
    forward.fails_on = 50
    blocker = batcher.submit(sequences(4), ("mean",), bulk())
    assert forward.entered.wait(10)
    good, bad = (
        batcher.submit(sequences(20, 21), ("mean",), bulk()),
        batcher.submit(sequences(50, 90), ("mean",), bulk()),
    )
    forward.leave.set()
    assert len(result(good)) == 2
    assert len(result(blocker)) == 1
    with pytest.raises(RuntimeError, match="this length fails"):
        result(bad)
    assert len(result(batcher.submit(sequences(7), ("mean",), bulk()))) == 1


def test_a_failed_calls_other_texts_are_not_computed(batcher, forward):
    forward.fails_on = 90
    with pytest.raises(RuntimeError):
        result(batcher.submit(sequences(90, 5, 6), ("mean",), bulk()))
    result(batcher.submit(sequences(40), ("mean",), bulk()))
    assert forward.batches == [[90], [40]]


def test_closing_fails_what_waits(forward):
    batcher = OneModel(forward, policy())
    forward.leave.clear()
    under_way = batcher.submit(sequences(60), ("mean",), bulk())
    assert forward.entered.wait(10)
    waiting = batcher.submit(sequences(60), ("mean",), bulk())
    closer = threading.Thread(target=batcher.close)
    closer.start()
    with pytest.raises(NotLoaded):
        result(waiting)  # it fails at once, however long the other one takes
    forward.leave.set()
    closer.join(10)
    assert len(result(under_way)) == 1
    with pytest.raises(NotLoaded):
        batcher.submit(sequences(1), ("mean",), bulk())


def test_nobody_waits_for_a_thread_that_has_ended():
    entered, leave = threading.Event(), threading.Event()

    def forward(sequences, wanted):
        entered.set()
        assert leave.wait(10)
        raise SystemExit  # stands for any error that ends the thread

    batcher = OneModel(forward, policy())
    under_way = batcher.submit(sequences(60), ("mean",), bulk())
    assert entered.wait(10)
    waiting = batcher.submit(sequences(60), ("mean",), bulk())
    assert batcher.load.ready
    leave.set()
    for job in (under_way, waiting):
        with pytest.raises(NotLoaded, match="has ended"):
            result(job)
    with pytest.raises(NotLoaded):
        batcher.submit(sequences(1), ("mean",), bulk())
    assert batcher.load.broken
    batcher.close()


def test_streams_compute_at_the_same_time():
    together = threading.Barrier(2)

    def forward(sequences, wanted):
        together.wait(10)  # BrokenBarrierError, unless another batch is computed meanwhile
        return [np.array([sequences[index][0]], np.float32) for index, _ in wanted]

    batcher = OneModel(forward, policy(), streams=2)
    rows = result(batcher.submit(sequences(*[90] * 20), ("mean",), bulk()))
    batcher.close()
    assert [arrays[0][0] for arrays in rows] == list(range(20))
    assert not batcher.load.ready


def test_a_batch_is_of_one_model():
    seen = {"encoder": Recorder(), "reranker": Recorder()}
    models = {name: Model(forward, None, Padding(64, None)) for name, forward in seen.items()}
    batcher = Batcher(policy())
    seen["encoder"].leave.clear()
    jobs = [batcher.submit(models["encoder"], sequences(60), [("mean",)], bulk())]
    assert seen["encoder"].entered.wait(10)
    for priority in ("bulk", None):
        for _ in range(2):
            jobs += [
                batcher.submit(one, sequences(9, 8), [("cls",)] * 2, Caller(priority))
                for one in models.values()
            ]
    seen["encoder"].leave.set()
    for job in jobs:
        result(job)
    batcher.close()
    assert sorted(seen["encoder"].batches) == [[8, 9], [9, 8], [60]]
    assert sorted(seen["reranker"].batches) == [[8, 9], [9, 8]]
