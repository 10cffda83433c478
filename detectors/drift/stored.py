"""Whether stored pages are those of this model: the same arrays, of the same shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectors.base import Page, StateError

_WAITING = (
    "waiting",
    "late",
    "waiting_sums",
    "late_sums",
    "wait_bins",
    "wait_raw",
    "wait_valid",
    "wait_time",
    "faults",
)
"""Arrays whose first axis varies."""


def check_pages(
    detector: str, pages: Mapping[str, Page], whole: Mapping[str, Page], group: Mapping[str, tuple[int, ...]]
) -> None:
    """StateError when arrays of `pages` are missing or do not fit. `whole` has a page of each name that there is one
    of; all others are groups with arrays of the shapes `group`."""
    for name, page in pages.items():
        wanted = _shapes(whole[name]) if name in whole else dict(group)
        found = _shapes(page)
        if {k: _fixed(k, v) for k, v in found.items()} != {k: _fixed(k, v) for k, v in wanted.items()}:
            differ = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            raise StateError(f"{detector}: page {name!r} does not fit the reference in {', '.join(differ)}")


def _shapes(page: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in page.items()}


def _fixed(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if name in _WAITING else shape
