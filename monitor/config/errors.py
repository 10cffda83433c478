"""What is wrong with a configuration: every problem with its file, line, key, sentence and mend."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Key = tuple[str | int, ...]  # ("kafka", "topics", 0, "type")

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class KeyProblem:
    """A problem found in validated settings, before file and line are known.

    `key` is what the message names; `at` is the key whose line is shown when that is another one.
    """

    key: Key
    sentence: str
    mend: str = ""
    at: Key | None = None


@dataclass(frozen=True)
class Problem:
    """One problem; `line` counts from 1, None where there is none; `key` is "" for the file itself."""

    file: str
    line: int | None
    key: str
    sentence: str
    mend: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        where = f"{place}: {self.key}: " if self.key else f"{place}: "
        return f"{where}{self.sentence} {self.mend}".rstrip()


class ConfigError(Exception):
    """The configuration cannot be used. `problems` are in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def key_text(key: Key) -> str:
    """("kafka", "topics", 0, "type") → `kafka.topics[0].type`; a name with other characters is put in `["…"]`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{printable(part)}"]'
    return text


def printable(text: str, limit: int = 60) -> str:
    """`text` on one line, without control characters, cut to `limit` characters."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
