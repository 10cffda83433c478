from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor import failpoints
from monitor.failpoints import FAILPOINTS, VARIABLE, FailPointHit, arm, disarm, failpoint


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    yield
    disarm()


def test_off_it_does_nothing() -> None:
    failpoint("before_commit")


def test_it_acts_on_the_visit_asked_for_only() -> None:
    arm("after_pages:2:raise")
    failpoint("after_pages")
    failpoint("before_commit")
    with pytest.raises(FailPointHit, match="after_pages, visit 2"):
        failpoint("after_pages")
    failpoint("after_pages")


@pytest.mark.parametrize(
    "spec", ["", "nowhere:1", "after_pages", "after_pages:0", "after_pages:x", "after_pages:1:eat"]
)
def test_bad_specifications_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="fail-point"):
        arm(spec)


def test_undeclared_names_are_refused_when_armed() -> None:
    arm("after_pages:1")
    with pytest.raises(ValueError, match="not declared"):
        failpoint("nowhere")


def test_every_declared_fail_point_is_in_the_code() -> None:
    package = Path(failpoints.__file__).parent
    code = "\n".join(path.read_text() for path in package.rglob("*.py"))
    assert set(re.findall(r'\bfailpoint\("(\w+)"\)', code)) - {"name"} == set(FAILPOINTS)


@pytest.mark.parametrize(("action", "expected"), [("", -signal.SIGKILL), (":crash", -signal.SIGKILL)])
def test_the_variable_arms_a_process(action: str, expected: int) -> None:
    code = "from monitor.failpoints import failpoint\nfor _ in range(3): failpoint('after_commit'); print('on')"
    died = subprocess.run(
        [sys.executable, "-uc", code],
        env={"PYTHONPATH": ":".join(sys.path), VARIABLE: f"after_commit:2{action}"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert died.returncode == expected, died.stderr
    assert died.stdout == "on\n"
