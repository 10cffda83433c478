"""A categorical column of more values than have a code of their own: what is said of an event does not depend on the
events that share its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from detectors.batch import KNOWN_WORDS, Batch
from detectors.drift.scores import FAMILIES
from detectors.drift.target import Target
from detectors.moves.asked import Cells
from detectors.reference import Reference
from detectors.views.bins import Binning
from detectors.views.dependence import Tree
from detectors.views.projection import Projection
from detectors.views.query_hash import QueryHash
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType

Of = Callable[[Batch], npt.NDArray[Any]]
ROWS = 2 * KNOWN_WORDS


def event(word: str, amount: float) -> Event:
    return Event(
        EventType.PREDICTION, 0.0, features={"id": word, "amount": amount, "kind": ("a", "b")[int(amount) % 2]}
    )


REFERENCE = [event(f"w{i}", float(i % 97)) for i in range(ROWS)]
SCHEMA = infer_schema(REFERENCE)
WHOLE: Reference = build_reference(REFERENCE, SCHEMA, "file", "model:/m")


def batch(words: list[str]) -> Batch:
    events = [event(word, 5.0) for word in words]
    return build_batch("model:/m", 0, events, [("t", 0, i, 0) for i in range(len(events))], SCHEMA)


def _cells(of: Batch) -> npt.NDArray[Any]:
    return Cells(WHOLE.rows).of(of, np.arange(len(of)))


@pytest.mark.parametrize(
    "of", [Projection(WHOLE).points, Tree(WHOLE).of, QueryHash(WHOLE, None).of, _cells], ids=lambda of: of.__qualname__
)
@pytest.mark.parametrize("word", ["w3", f"w{KNOWN_WORDS + 5}", "never seen"])
def test_an_event_is_the_same_alone_and_behind_a_thousand_others(of: Of, word: str) -> None:
    others = [f"other {i}" for i in range(KNOWN_WORDS + 10)]
    alone, behind = of(batch([word])), of(batch([*others, word]))
    np.testing.assert_array_equal(behind[-1], alone[0])


def test_rare_words_of_the_reference_are_themselves() -> None:
    """A training row whose word has no code of its own is found again, and two such rows are two."""
    hashed = QueryHash(WHOLE, None)
    rows = hashed.of(WHOLE.rows)
    at = [KNOWN_WORDS + 5, KNOWN_WORDS + 700]
    again = build_batch("model:/m", 0, [REFERENCE[i] for i in at], [("t", 0, i, 0) for i in at], SCHEMA)
    np.testing.assert_array_equal(hashed.of(again), rows[at])
    assert len(set(rows.tolist())) == ROWS


def test_a_column_that_is_mostly_missing_is_in_no_pair() -> None:
    """Its products are 0 but for a few, and these have tails that no reference shows."""
    rng = np.random.default_rng(1)
    rows = [
        Event(EventType.PREDICTION, 0.0, features={"rare": x if i % 50 == 0 else None, "a": y, "b": z})
        for i, (x, y, z) in enumerate(rng.standard_normal((2_000, 3)).tolist())
    ]
    whole = build_reference(rows, infer_schema(rows), "file", "model:/m")
    made = Target(whole, Binning(whole, {}))
    pairs = [s.stream.fields for s, f in zip(made.scores, made.family, strict=True) if FAMILIES[f] == "pair"]
    assert pairs == [("a", "b")]
