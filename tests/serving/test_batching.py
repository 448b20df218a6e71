"""The batcher with a clock of its own: no loop, no process, no sleep."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.serving.batching import AdaptiveBatcher


def batcher(**options) -> AdaptiveBatcher[str]:
    return AdaptiveBatcher(slo_s=options.pop("slo_s", 0.1), **options)


def test_the_earliest_deadline_goes_first():
    """A row that came later but must be answered sooner goes first."""
    queue = batcher(start=1)
    queue.admit(["late"], deadline=2.0, now=0.0)
    queue.admit(["soon"], deadline=1.0, now=0.1)
    assert queue.take(0.2) == (["soon"], [])
    assert queue.take(0.2) == (["late"], [])


def test_equal_deadlines_go_in_order_of_arrival():
    """Rows of one request, and of requests with one deadline, keep their order."""
    queue = batcher(start=10)
    queue.admit(["a", "b"], deadline=1.0, now=0.0)
    queue.admit(["c"], deadline=1.0, now=0.0)
    assert queue.take(0.0)[0] == ["a", "b", "c"]


def test_expired_rows_never_run():
    """A row whose deadline is now or past is handed back as expired, not in a batch."""
    queue = batcher()
    queue.admit(["gone"], deadline=1.0, now=0.0)
    queue.admit(["here"], deadline=1.5, now=0.0)
    assert queue.take(1.0) == (["here"], ["gone"])
    assert len(queue) == 0


def test_nothing_waits_without_being_asked():
    """With no max_wait a single row goes at once."""
    queue = batcher()
    queue.admit(["a"], deadline=1.0, now=0.0)
    assert queue.ready_at() == -math.inf
    assert queue.take(0.0)[0] == ["a"]


def test_a_batch_waits_to_fill_no_longer_than_max_wait():
    """With max_wait a part of a batch waits that long from its oldest row; a full one goes."""
    queue = batcher(max_wait_s=0.01, start=3)
    queue.admit(["a"], deadline=1.0, now=0.0)
    queue.admit(["b"], deadline=0.5, now=0.008)
    assert queue.take(0.009) == ([], [])
    assert queue.ready_at() == pytest.approx(0.01)
    assert queue.take(0.01)[0] == ["b", "a"]
    queue.admit(["c", "d", "e"], deadline=1.0, now=0.02)
    assert queue.take(0.02)[0] == ["c", "d", "e"]


def test_an_empty_queue_is_never_ready():
    """Nothing waits: nothing to run, and no time at which there will be."""
    assert batcher().take(0.0) == ([], [])
    assert batcher().ready_at() == math.inf


def test_full_fast_batches_raise_the_limit_by_two():
    """Additive increase: two more rows for each full batch within 90 % of the SLO."""
    queue = batcher(start=8)
    queue.finished(8, 0.05)
    assert queue.limit == 10
    queue.finished(10, 0.0899)
    assert queue.limit == 12


def test_a_part_of_a_batch_proves_nothing():
    """A batch below the limit does not raise it, however fast it was."""
    queue = batcher(start=8)
    queue.finished(7, 0.001)
    assert queue.limit == 8


def test_a_batch_between_comfort_and_slo_changes_nothing():
    """Between 90 and 100 % of the SLO the limit stays."""
    queue = batcher(start=8)
    queue.finished(8, 0.095)
    assert queue.limit == 8


def test_a_miss_lowers_the_limit_by_a_tenth():
    """Multiplicative decrease, and never below one row."""
    queue = batcher(start=20)
    queue.finished(3, 0.11)
    assert queue.limit == 18
    for _ in range(200):
        queue.finished(1, 9.0)
    assert queue.limit == 1


def test_the_limit_finds_what_the_slo_allows():
    """On a model with a fixed and a per-row cost the limit settles where the SLO is."""
    queue = batcher(slo_s=0.1, start=1)
    limits = []
    for _ in range(2000):
        queue.finished(queue.limit, 0.010 + 0.0005 * queue.limit)
        limits.append(queue.limit)
    # 0.010 + 0.0005 n = 0.1 at n = 180; comfort ends at n = 160.
    assert min(limits[1000:]) >= 155
    assert max(limits[1000:]) <= 182


def test_a_full_queue_refuses_a_request_whole():
    """Beyond max_queue nothing of a request is queued."""
    queue = batcher(max_queue=3)
    assert queue.admit(["a", "b"], deadline=1.0, now=0.0)
    assert not queue.admit(["c", "d"], deadline=1.0, now=0.0)
    assert len(queue) == 2
    assert queue.admit(["c"], deadline=1.0, now=0.0)


def test_an_idle_queue_takes_any_request():
    """A large batch on an idle server is admitted: the body's size bounds it."""
    queue = batcher(max_queue=3)
    assert queue.admit(list("abcdefgh"), deadline=1.0, now=0.0)


def test_a_queue_longer_than_the_slo_can_clear_refuses():
    """With 8 rows per 50 ms, 16 waiting rows are what 100 ms can clear."""
    queue = batcher(slo_s=0.1, start=8)
    queue.finished(7, 0.05)
    assert queue.admit(["x"] * 17, deadline=9.0, now=0.0)
    assert queue.clear_time() > 0.1
    assert not queue.admit(["y"], deadline=9.0, now=0.0)
    queue.workers = 2
    assert queue.admit(["y"], deadline=9.0, now=0.0)


def test_one_straggler_does_not_shut_the_door():
    """After one batch of half a minute a short queue is still admitted."""
    queue = batcher(slo_s=0.1, start=8)
    queue.finished(1, 30.0)
    queue.admit(["a"], deadline=1.0, now=0.0)
    assert queue.admit(["b"], deadline=1.0, now=0.0)


def test_expired_rows_make_room():
    """Rows behind a model that hangs do not fill the queue for ever."""
    queue = batcher(max_queue=2)
    queue.admit(["a", "b"], deadline=1.0, now=0.0)
    assert queue.expire(1.0) == ["a", "b"]
    assert queue.admit(["c", "d"], deadline=2.0, now=1.0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(0, 30), st.floats(0.0, 0.5)),
        st.tuples(st.just("take"), st.floats(0.0, 0.2), st.just(0.0)),
        st.tuples(st.just("finish"), st.floats(0.0, 0.3), st.just(0.0)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=steps, max_wait=st.sampled_from([0.0, 0.005, 0.05]), start=st.integers(1, 20))
def test_every_row_comes_back_once_in_time_and_in_order(steps, max_wait, start):
    """Whatever happens: each admitted row is run or expired exactly once, none runs late,
    batches keep the limit and the order of deadlines."""
    queue: AdaptiveBatcher[tuple[int, float]] = AdaptiveBatcher(
        slo_s=0.1, max_wait_s=max_wait, start=start, max_queue=100
    )
    now, number = 0.0, 0
    admitted, ran, expired = set(), [], []
    for kind, first, second in steps:
        if kind == "admit":
            deadline = now + second
            rows = [(number + index, deadline) for index in range(first)]
            number += first
            before = len(queue)
            if queue.admit(rows, deadline=deadline, now=now):
                admitted |= set(rows)
            else:
                assert before
                assert len(queue) == before
        elif kind == "take":
            now += first
            limit, waiting = queue.limit, len(queue)
            batch, late = queue.take(now)
            assert len(batch) <= limit
            assert all(deadline > now for _, deadline in batch)
            assert all(deadline <= now for _, deadline in late)
            assert [deadline for _, deadline in batch] == sorted(d for _, d in batch)
            assert len(queue) == waiting - len(batch) - len(late)
            if not max_wait:
                assert batch or not len(queue)
            ran += batch
            expired += late
        else:
            queue.finished(queue.limit, first)
            assert 1 <= queue.limit <= queue.largest
    assert len(ran) == len(set(ran))
    assert not set(ran) & set(expired)
    rest = []
    while len(queue):
        now += 1.0
        batch, late = queue.take(now)
        rest += batch + late
    assert set(ran) | set(expired) | set(rest) == admitted


@settings(max_examples=100, deadline=None)
@given(waits=st.lists(st.floats(0.0, 0.02), min_size=1, max_size=20))
def test_nobody_waits_longer_than_max_wait_for_company(waits):
    """At ready_at() a batch is there, and that is never later than max_wait after arrival."""
    queue = batcher(max_wait_s=0.01, start=1000)
    now = 0.0
    first = None
    for wait in waits:
        now += wait
        if len(queue) and queue.ready_at() <= now:
            break
        queue.admit(["row"], deadline=now + 10, now=now)
        first = now if first is None else first
    ready = queue.ready_at()
    assert ready <= first + 0.01 + 1e-12
    assert queue.take(ready)[0]
