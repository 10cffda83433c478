"""Recurring tasks: one that raises is reported and goes on; an incident after three failures in a row."""

from __future__ import annotations

import threading

from monitor.heartbeat import HeartbeatError
from monitor.metrics import Metrics
from monitor.schedule import Schedule, Task, Trouble


def value(metrics: Metrics, name: str, task: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"task": task})


def test_a_task_that_raises_is_counted_and_told_once_and_told_when_it_works_again() -> None:
    metrics, broken = Metrics(), True

    def work() -> bool:
        if broken:
            raise HeartbeatError("no answer")
        return True

    task = Task("beat", 60.0, work)
    schedule = Schedule([], metrics)
    told = []
    for _ in range(5):
        schedule.run(task)
        told.append(schedule.troubles())
    assert told == [[], [], [Trouble("beat", "no answer", 3)], [], []]
    assert value(metrics, "modelwarden_task_failures_total", "beat") == 5
    assert value(metrics, "modelwarden_task_last_success_timestamp_seconds", "beat") is None
    broken = False
    schedule.run(task)
    schedule.run(task)
    assert schedule.troubles() == [Trouble("beat", "", 0)]
    assert value(metrics, "modelwarden_task_last_success_timestamp_seconds", "beat")


def test_what_an_error_of_others_says_is_not_repeated() -> None:
    def work() -> bool:
        raise ValueError("acme did it")

    schedule = Schedule([], Metrics())
    for _ in range(3):
        schedule.run(Task("t", 1.0, work))
    (trouble,) = schedule.troubles()
    assert "ValueError" in trouble.reason and "acme" not in trouble.reason


def test_nothing_to_do_is_neither_success_nor_failure() -> None:
    metrics = Metrics()
    Schedule([], metrics).run(Task("t", 1.0, lambda: False))
    assert value(metrics, "modelwarden_task_failures_total", "t") is None
    assert value(metrics, "modelwarden_task_last_success_timestamp_seconds", "t") is None


def test_tasks_run_again_and_again_and_never_twice_at_a_time() -> None:
    enough, running, most = threading.Event(), 0, 0
    rounds = 0
    lock = threading.Lock()

    def slow() -> bool:
        nonlocal running, most, rounds
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.05)  # longer than the interval
        with lock:
            running -= 1
            rounds += 1
        if rounds == 2:
            raise RuntimeError("one round fails")
        if rounds >= 4:
            enough.set()
        return True

    metrics = Metrics()
    schedule = Schedule([Task("slow", 0.02, slow)], metrics)
    schedule.start()
    assert enough.wait(10.0)
    schedule.stop()
    assert most == 1 and running == 0
    assert value(metrics, "modelwarden_task_failures_total", "slow") == 1
