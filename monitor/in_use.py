"""Which version of a reference a model is watched with: a version that is approved later waits for the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

from monitor.references import TARGET, Version, in_force
from monitor.state.codec import array_text
from monitor.state.store import StateStore
from monitor.watch import COUNTS

WHEN: Final = "in force when the daemon next starts, takes over or reads its configuration (SIGHUP)"
"""What happens to a version that is approved."""


class Content(Version, Protocol):
    """What of a version says whether it is in use."""

    @property
    def content_hash(self) -> str: ...


V = TypeVar("V", bound=Content)


def contents_in_use(store: StateStore, subject: str | None = None) -> dict[str, str]:
    """By subject: content hash of the reference that the daemon watches with, or did last; "" while it learns one.

    A subject of which nothing is stored is left out.
    """
    found = {}
    for page in store.load_pages(subject, damaged=[], detector=COUNTS):
        if "reference" in page.arrays:
            (found[page.subject],) = array_text(page.arrays["reference"])
    return found


def in_use(stored: Sequence[V], subject: str, contents: Mapping[str, str], role: str = TARGET) -> V | None:
    """Of the versions of one subject, newest last: the one the daemon watches with.

    Where the daemon has not said which that is, the one it will take at its next start.
    """
    known = contents.get(subject) if role == TARGET else None
    if known == "":
        return None
    used = [r for r in stored if r.role == role and r.content_hash == known]
    return used[-1] if used else in_force(stored, role)
