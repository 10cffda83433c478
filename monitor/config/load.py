"""Finding, reading and checking the configuration file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from monitor.config.checks import cross_checks
from monitor.config.document import MAX_BYTES, Document, read_document
from monitor.config.errors import ConfigError, KeyProblem, Problem, key_text
from monitor.config.messages import explain
from monitor.config.schema import Config

# A rule that this package cannot know, such as the parameters of a registered detector.
Check: TypeAlias = Callable[[Config], Iterable[KeyProblem]]

_USUAL = (Path("modelwarden.yaml"), Path("/etc/modelwarden/modelwarden.yaml"))


def find_config(explicit: Path | None = None, environ: Mapping[str, str] | None = None) -> Path | None:
    """The file to read: the explicit one, $MODELWARDEN_CONFIG, or the first usual one that exists.

    The first two are returned also when they do not exist, so that reading them says so.
    """
    if explicit is not None:
        return explicit
    named = (os.environ if environ is None else environ).get("MODELWARDEN_CONFIG")
    if named:
        return Path(named)
    return next((path for path in _USUAL if _exists(path)), None)


def load_config(path: Path, *, environ: Mapping[str, str] | None = None, checks: Sequence[Check] = ()) -> Config:
    """Read and check one file. Raises ConfigError with every problem found; never reads the secrets it names."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a usable path"
        mend = "Check path and permissions."
        raise ConfigError([Problem(str(path), None, "", f"The file cannot be read: {reason}.", mend)]) from None
    if len(raw) > MAX_BYTES:
        problem = Problem(str(path), None, "", f"The file is larger than {MAX_BYTES:,} bytes.", "Name another file.")
        raise ConfigError([problem])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            [Problem(str(path), line, "", "This is not UTF-8 text.", "Save the file as UTF-8.")]
        ) from None
    config = parse_config(text, path, environ=environ, checks=checks)
    config._digest = hashlib.sha256(raw).hexdigest()
    return config


def parse_config(
    text: str, path: Path, *, environ: Mapping[str, str] | None = None, checks: Sequence[Check] = ()
) -> Config:
    """Check the text of a file; `path` is named in messages, and relative paths start from its directory."""
    file = str(path)
    document = read_document(text, file, environ)
    try:
        config = Config.model_validate(document.data, context={"base": path.absolute().parent})
    except ValidationError as error:
        raise ConfigError(explain(error, document, file)) from None
    config._file = path
    found = [problem for check in (cross_checks, *checks) for problem in check(config)]
    if found:
        raise ConfigError(_located(problem, document, file) for problem in found)
    return config


def _located(problem: KeyProblem, document: Document, file: str) -> Problem:
    line = document.place(problem.key if problem.at is None else problem.at).line
    return Problem(file, line, key_text(problem.key), problem.sentence, problem.mend)


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return True  # it may not be looked at: reading it will say why
