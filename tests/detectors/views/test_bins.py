from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.base import ABSENT_CODE, MISTYPED_CODE, NULL_CODE, Category, Cell, Context, Views
from detectors.numeric import bin_numbers
from detectors.views.bins import TOP, binning
from tests.detectors import streams

CONTEXT = Context("model:/simulated", streams.reference(1))


def test_every_cell_has_a_bin_and_the_view_is_made_once() -> None:
    batch = streams.join(streams.clean(2, 500))
    views = Views(batch, CONTEXT)
    index = views.get("bins")
    sizes = [c.bins for c in binning(CONTEXT).numeric] + [c.bins for c in binning(CONTEXT).category]
    assert index.shape == (500, 22) and index.dtype == np.int16
    assert ((index >= 0) & (index < np.array(sizes))).all()
    assert views.get("bins") is index


def test_categories_have_bins_for_top_rest_new_and_missing() -> None:
    batch = streams.part(streams.join(streams.clean(2, 100)), 0, 6)
    column = binning(CONTEXT).category[7]
    assert len(column.top) == TOP
    known = batch.category.vocabulary[7]
    rare = next(w for w, b in column.lookup.items() if b == TOP)
    codes = batch.category.codes.copy()
    codes[:, 7] = [known.index(column.top[0]), known.index(rare), len(known) - 1, NULL_CODE, ABSENT_CODE, MISTYPED_CODE]
    made = replace(batch, category=replace(batch.category, codes=codes))
    rest, new, missing = TOP, TOP + 1, TOP + 2
    assert Views(made, CONTEXT).get("bins")[:, 13 + 7].tolist() == [0, rest, new, missing, missing, new]


def test_codes_are_read_through_the_vocabulary_of_the_batch() -> None:
    """New values get other codes in every batch; and a batch may know the values in another order."""
    batch = streams.join(streams.clean(2, 200))
    old = batch.category
    words = tuple((*reversed(v), "yet another") for v in old.vocabulary)
    codes = np.stack([len(v) - 1 - old.codes[:, j] for j, v in enumerate(old.vocabulary)], axis=1).astype(np.int32)
    turned = replace(batch, category=Category(old.names, codes, words))
    assert np.array_equal(Views(turned, CONTEXT).get("bins"), Views(batch, CONTEXT).get("bins"))


@pytest.mark.parametrize(("value", "status", "place"), [
    (-1e308, Cell.VALID, "below"), (1e308, Cell.VALID, "above"), (0.0, Cell.NULL, "missing"),
    (0.0, Cell.ABSENT, "missing"), (0.0, Cell.NOT_FINITE, "wrong"), (0.0, Cell.MISTYPED, "wrong"),
])  # fmt: skip
def test_numbers_outside_and_no_numbers_have_their_bins(value: float, status: Cell, place: str) -> None:
    batch = streams.with_cell(streams.part(streams.join(streams.clean(2, 100)), 0, 1), 0, 0, value, status)
    above = len(binning(CONTEXT).numeric[0].edges)
    where = {"below": 0, "above": above, "missing": above + 1, "wrong": above + 2}
    assert Views(batch, CONTEXT).get("bins")[0, 0] == where[place]


def test_other_columns_than_the_references_are_refused() -> None:
    batch = streams.join(streams.clean(2, 10))
    other = replace(batch, numeric=replace(batch.numeric, names=("x", *batch.numeric.names[1:])))
    with pytest.raises(ValueError, match="differ from its reference"):
        Views(other, CONTEXT).get("bins")


def test_a_model_without_a_reference_has_no_bins() -> None:
    with pytest.raises(ValueError, match="has no reference"):
        Views(streams.join(streams.clean(2, 10)), Context("x")).get("bins")


def test_a_threshold_within_the_range_has_an_edge_of_its_own() -> None:
    name = binning(CONTEXT).numeric[0].name
    values = np.array([2.0, 2.5, 3.0])
    made = replace(CONTEXT, thresholds={name: 2.5}, cache={})
    column = next(c for c in binning(made).numeric if c.name == name)

    bins = bin_numbers(values, np.zeros(3, np.uint8), column.edges)
    assert (bins >= column.threshold).tolist() == [False, True, True]
    assert binning(replace(CONTEXT, thresholds={name: 1e9}, cache={})).numeric[0].threshold == 0
