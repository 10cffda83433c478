"""Logs go to stderr: JSON lines for machines, or readable lines for people. Control characters never pass as they are.

structlog and the standard loggers of libraries end in one handler. Libraries are heard from WARNING on, and do not
repeat themselves: a client that finds no broker says so several times a second.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from monitor.printable import one_line

_LIBRARIES: Final = ("kafka", "uvicorn", "uvicorn.error", "alembic", "httpx", "sqlalchemy", "apscheduler")
REPEAT_SECONDS: Final = 60.0
_MAX_KEYS: Final = 1_000
_KEY_LENGTH: Final = 60
_OWN: Final = ("monitor", "alerts", "detectors")


def configure_logging(json: bool, level: int = logging.INFO) -> None:
    """Send all logs to stderr from now on; `json` for one JSON object a line. `level` is that of our own packages."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    ends: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if json:
        ends += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=repr)]
    else:
        plain = structlog.dev.plain_traceback
        ends += [_printable, structlog.dev.ConsoleRenderer(colors=_colours(), exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=ends, foreign_pre_chain=shared))
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _OWN:
        logging.getLogger(name).setLevel(level)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _Repeats(logging.Filter):
    """Lets one entry of a library pass in `REPEAT_SECONDS`, of those that differ in their values only."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] in _OWN:
            return True
        key = record.name, str(record.msg)[:_KEY_LENGTH]
        last = self._last.get(key)
        if last is not None and record.created - last < REPEAT_SECONDS:
            return False
        if len(self._last) >= _MAX_KEYS:
            self._last.clear()
        self._last[key] = record.created
        return True


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Every value on one line; tracebacks (`exc_info`, `stack`) stay as they are until they are rendered."""
    return {key: value if key in ("exc_info", "stack") else _safe(value) for key, value in event.items()}


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return one_line(repr(value))


def _colours() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
