"""Where the time went: parts add up to wall time x cores, over laps and over processes."""

import threading
import time

import pytest

from pipeline.caching.breakdown import Breakdown, WorkClock, sum_breakdowns


def test_a_breakdown_says_seconds_and_shares_of_every_activity() -> None:
    spent = {"decode": 1.0, "warp": 2.0, "encode": 3.0, "write": 0.5, "teacher": 10.0}
    assert Breakdown(20.0, spent, 10.0, 9.0).describe() == (
        "CPU time of 20.0 core-seconds: decode 1.0 s (5%), warp 2.0 s (10%), teacher 10.0 s (50%), "
        "encode 3.0 s (15%), write 0.5 s (2%), idle 3.5 s (18%); the teacher was at work 90% of "
        "the time"
    )


def test_a_breakdown_says_what_a_teacher_that_was_idle_waited_for() -> None:
    waited = {"crops": 3.0, "encoding": 1.0}
    words = Breakdown(20.0, {"teacher": 10.0}, 10.0, 8.0, waited).describe()
    assert words.endswith("at work 80% of the time, and waited for crops 15%, encoding 5%")
    busy = Breakdown(20.0, {"teacher": 10.0}, 10.0, 9.98, waited).describe()
    assert busy.endswith("at work 100% of the time")


def test_waits_are_counted_by_what_was_waited_for() -> None:
    clock = WorkClock()
    with clock.waiting_for("crops"):
        time.sleep(0.02)
    with clock.waiting_for("encoding"):
        pass
    lap = clock.lap()
    assert lap.waited_seconds["crops"] >= 0.02 > lap.waited_seconds["encoding"] >= 0
    assert sum_breakdowns([lap, lap]).waited_seconds["crops"] == 2 * lap.waited_seconds["crops"]
    assert clock.lap().waited_seconds == {}


def test_breakdowns_add_up() -> None:
    one, other = Breakdown(4.0, {"decode": 1.0}, 2.0, 1.0), Breakdown(6.0, {"warp": 2.0}, 3.0, 2.0)
    total = sum_breakdowns([one, other])
    assert total == Breakdown(10.0, {"decode": 1.0, "warp": 2.0}, 5.0, 3.0)
    assert total.seconds("idle") == 7.0
    assert sum_breakdowns([]).seconds("idle") == 0.0


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_cpu_time_counts_where_it_was_spent_and_waiting_costs_nothing() -> None:
    clock = WorkClock()

    def work() -> None:
        with clock.measure("decode"):
            burn(0.05)
        with clock.measure("write"):
            time.sleep(0.05)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    burn(0.04)
    lap = clock.lap()
    assert lap.seconds("decode") == pytest.approx(0.15, abs=0.03)
    assert lap.seconds("write") < 0.02
    assert lap.seconds("teacher") >= 0.03
    assert clock.lap().seconds("decode") == 0.0
