"""Recurring tasks beside the loop, by APScheduler. A task that raises is counted, logged and tried again.

Jobs live in memory only: they are made at every start, and the SQL job store would unpickle what it reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from monitor.metrics import Metrics
from monitor.printable import whereabouts

log = structlog.get_logger(__name__)
_OURS: Final = ("monitor.", "alerts.")
FAILURES: Final = 3
"""Failures in a row after which an incident says so."""


class Task(NamedTuple):
    """What is done again and again. `work` returns false when there was nothing for it to do here."""

    name: str
    seconds: float
    work: Callable[[], bool]
    first: float = 0.0
    """Seconds from the start to the first time."""


class Trouble(NamedTuple):
    """A task that has failed `failures` times in a row; 0: it works again."""

    task: str
    reason: str
    failures: int


class Schedule:
    """Runs tasks in threads of its own; never two of the same task at a time, and missed times count as one."""

    def __init__(self, tasks: Sequence[Task], metrics: Metrics) -> None:
        self._metrics = metrics
        self._failures: dict[str, int] = {}
        self._troubles: list[Trouble] = []
        self._lock = threading.Lock()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(len(tasks) + 1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for task in tasks:
            self.put(task)

    def put(self, task: Task) -> None:
        """Run this task from now on, instead of one of its name."""
        begin = datetime.now(UTC) + timedelta(seconds=task.first)
        self._scheduler.add_job(
            self.run,
            "interval",
            (task,),
            seconds=task.seconds,
            next_run_time=begin,
            id=task.name,
            name=task.name,
            replace_existing=True,
        )

    def drop(self, name: str) -> None:
        """Run this task no more. It is told to be well if it failed: nobody waits for it now."""
        with suppress(JobLookupError):
            self._scheduler.remove_job(name)
        if self._failures.pop(name, 0) >= FAILURES:
            self._tell(Trouble(name, "", 0))

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """End, after the tasks that run."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def troubles(self) -> list[Trouble]:
        """Tasks that began to fail again and again, or work again, since the last call."""
        with self._lock:
            told, self._troubles = self._troubles, []
        return told

    def run(self, task: Task) -> None:
        """Do the task once; nothing is raised."""
        try:
            done = task.work()
        except Exception as error:
            self._failed(task, error)
            return
        if done:
            self._metrics.task_success.labels(task.name).set_to_current_time()
            if self._failures.pop(task.name, 0) >= FAILURES:
                self._tell(Trouble(task.name, "", 0))

    def _failed(self, task: Task, error: Exception) -> None:
        failures = self._failures[task.name] = self._failures.get(task.name, 0) + 1
        # The text of an error that is not ours may quote anything.
        reason = str(error) if type(error).__module__.startswith(_OURS) else whereabouts(error)
        self._metrics.task_failures.labels(task.name).inc()
        log.error("task failed", task=task.name, failures=failures, reason=reason, error=whereabouts(error))
        if failures == FAILURES:
            self._tell(Trouble(task.name, reason, failures))

    def _tell(self, trouble: Trouble) -> None:
        with self._lock:
            self._troubles.append(trouble)
