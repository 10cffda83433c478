"""Waiting for something that becomes true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(check: Callable[[], T], deadline: float, what: str, interval: float = 0.05) -> T:
    """The first true answer of `check`; TimeoutError that names `what` after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {deadline:g} s: {what} (last answer: {answer!r})")
        time.sleep(interval)
