"""The accuracy that scores let expect: near the truth while scores keep their meaning, none where nothing is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alerts.incidents import IncidentBook, Sighting
from alerts.why import sentence
from detectors.base import Context, Finding, Rows, Views, registry
from detectors.findings import severity_of
from detectors.performance.expected_accuracy import expected_accuracy
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType
from monitor.lineup import PanelSettings
from monitor.panel import Panel
from monitor.watch import pack_rows, unpack_rows


def events(n: int, seed: int, near: float = 0.0, labelled: float = 1.0, classes: int = 2) -> list[Event]:
    """A model whose scores are too bold. `near`: how far its inputs have moved to where it is unsure."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 1, n) * 3 * (1 - near)
    true = 1 / (1 + np.exp(-margin))
    bold = 1 / (1 + np.exp(-2.5 * margin))
    yes = rng.random(n) < true
    made = []
    for i in range(n):
        said = bold[i] > 0.5
        label = ("yes" if yes[i] else "no") if rng.random() < labelled else None
        scores = {"yes": float(bold[i]), "no": float(1 - bold[i])}
        prediction = "yes" if said else "no"
        if classes == 3:
            scores = {**dict.fromkeys(("a", "b", "c"), 0.0), "a" if said else "b": float(max(bold[i], 1 - bold[i]))}
            prediction = "a" if said else "b"
            label = None if label is None else "a" if label == "yes" else "b"
        made.append(
            Event(
                EventType.PREDICTION, 1.7e9 + 60 * i, event_id=f"e{i}", features={"x": float(margin[i])},
                prediction=prediction, scores=scores, label=label,
            )
        )  # fmt: skip
    return made


def accuracy(made: list[Event]) -> float:
    return float(np.mean([e.prediction == e.label for e in made]))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_estimate_is_near_the_truth_though_scores_are_too_bold(classes: int) -> None:
    rows, live = events(4_000, 1, classes=classes), events(3_000, 2, near=0.7, classes=classes)
    schema = infer_schema(rows, classes=("a", "b", "c") if classes == 3 else ())
    context = Context("model:/m", build_reference(rows, schema, "file", "model:/m"))
    made = expected_accuracy(context)
    assert made is not None
    batch = build_batch("model:/m", 0, live, [("t", 0, i, 0) for i in range(len(live))], schema)
    index = Views(batch, context).get("bins")
    told = made.of(*(index[:, c] for c in made.columns))
    assert told is not None and told.before == pytest.approx(accuracy(rows), abs=0.01)
    assert told.now == pytest.approx(accuracy(live), abs=3 * told.error + 0.02)
    assert 0.1 < told.drop < told.before - told.now
    few = made.of(*(index[:20, c] for c in made.columns))
    assert few is None


def test_without_labels_or_with_few_nothing_is_estimated() -> None:
    for rows in (events(1_000, 1, labelled=0.0), events(1_000, 1, labelled=0.1)):
        assert expected_accuracy(Context("m", build_reference(rows, infer_schema(rows), "file", "m"))) is None


def test_labels_of_a_reference_are_stored_and_change_its_version() -> None:
    rows = events(300, 1)
    schema = infer_schema(rows)
    again = build_reference(unpack_rows(pack_rows(rows)), schema, "file", "m")
    first = build_reference(rows, schema, "file", "m")
    assert again.version == first.version and again.right is not None and first.right is not None
    assert (again.right == first.right).all() and again.right.mean() == pytest.approx(accuracy(rows))
    rows[0].label = "yes" if rows[0].label == "no" else "no"
    assert build_reference(rows, schema, "file", "m").version != first.version


def test_a_drift_that_costs_accuracy_is_critical_and_says_so() -> None:
    """By the importance of the field alone it would be no more than a warning."""
    importances = {"x": 0.001, "y": 1.0}
    for labelled, severity in ((1.0, "critical"), (0.0, "warning")):
        rows = events(2_000, 1, labelled=labelled)
        schema = infer_schema(rows)
        only: dict[str, dict[str, Any]] = {n: {"enabled": n == "predictive_drift"} for n in registry()}
        reference = build_reference(rows, schema, "file", "model:/m")
        panel = Panel("model:/m", "m", reference, PanelSettings(detectors=only, importances=importances))
        book = IncidentBook()

        def report(finding: Finding, source: Rows, book: IncidentBook = book) -> Any:
            return book.apply(Sighting(finding, "model:/m", "m", "", source.identity.at(finding.row), None))

        stream = events(2_000, 2) + events(1_000, 3, near=0.9)
        for begin in range(0, len(stream), 500):
            places = [("t", 0, begin + i, 0) for i in range(500)]
            panel.detect(build_batch("model:/m", begin, stream[begin : begin + 500], places, schema), report)
        first = book.open()[0]
        assert any(s.id == "x" for s in first.subjects) and not panel.failures
        assert ("estimated accuracy 0.8" in first.why) == bool(labelled), first.why
        assert first.severity == severity


def test_an_estimated_drop_only_makes_it_worse() -> None:
    importances = {"x": 1.0}
    assert severity_of({"x": 0.01}, importances, 0.0) == "info"
    assert severity_of({"x": 0.01}, importances, 0.05) == "warning"
    assert severity_of({"x": 0.01}, importances, 0.2) == "critical"
    assert severity_of({"x": 2.0}, importances, 0.05) == "critical"
    assert severity_of({}, {}, 0.0) == "warning"
    assert sentence("feature_drift", (), 0.0).startswith("feature drift")
