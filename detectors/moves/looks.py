"""What the queries of an unusual client look like, so that whoever reads the incident knows where to look first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detectors.moves.trail import LINKS, Trail

Kind = Literal["steady", "variations", "one field", "rescaled", "other"]


@dataclass(frozen=True, slots=True)
class Look:
    """A client's queries in one word, and how many of `n` bear it out."""

    kind: Kind
    count: int
    n: int


def look_of(trail: Trail) -> Look:
    """From what the queries were made: each other, step by step; one record; one record, field by field."""
    links = dict(zip(LINKS, trail.links.tolist(), strict=True))
    n = max(trail.judged, 1)
    steady, mask, edit = links["near"] + links["path"], links["mask"], links["edit"]
    if steady > 0.5 * n:
        return Look("steady", steady, n)
    if mask > 0.3 * n or (mask + edit > 0.5 * n and mask > edit):
        return Look("variations", mask, n)
    if edit + links["near"] > 0.15 * n:
        return Look("one field", edit + links["near"], n)
    return Look("rescaled" if trail.rescaled else "other", links["free"], n)
