"""docs/detectors/ and docs/incidents/ are what the declarations and runbooks say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from alerts.attribution import SECOND_STAGE, WORDS
from alerts.taxonomy import kinds
from detectors.base import Context, registry
from detectors.traffic import subject as traffic
from monitor.detector_pages import kinds_of, parameters
from monitor.docs_pages import pages, stale, write
from monitor.incident_pages import NOBODY, raised_by
from tests.detectors.streams import reference

DOCS = Path(__file__).parents[2] / "docs"
MEND = "write them anew: python -m monitor.docs_pages"


@dataclass(frozen=True)
class Params:
    """Both ways in which the packages document a field."""

    text: float = 0.5
    """Said in
    two lines."""
    comment: int = 3
    # Said in a comment.
    bare: bool = False


def test_the_pages_are_up_to_date() -> None:
    assert [name for name, text in pages().items() if not _same(DOCS / name, text)] == [], MEND
    assert stale(DOCS) == [], MEND


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def test_every_detector_and_every_kind_has_a_page() -> None:
    expected = {f"detectors/{name}.md" for name in (*registry(), traffic.NAME, SECOND_STAGE, "README")}
    assert set(pages()) == expected | {f"incidents/{name}.md" for name in (*kinds(), "README")}


def test_a_parameter_is_explained_by_what_stands_below_it() -> None:
    assert list(parameters(Params)) == [
        ("text", "0.5", "Said in two lines."),
        ("comment", "3", "Said in a comment."),
        ("bare", "False", ""),
    ]


@pytest.mark.parametrize("name", registry())
def test_every_parameter_is_explained(name: str) -> None:
    assert all(meaning.endswith(".") for _, _, meaning in parameters(registry()[name].Params))


def test_detectors_raise_kinds_that_exist() -> None:
    assert {kind for raised in kinds_of().values() for kind in raised} <= set(kinds())
    assert all(d.kind in kinds_of()[name] for name, d in registry().items() if kinds_of()[name])


def test_the_drift_detector_declares_the_kinds_of_its_streams() -> None:
    made = registry()["predictive_drift"]
    streams = made(Context("model:/m", reference(1)), made.Params()).streams()
    assert {stream.kind for stream in streams} == set(made.raises or ())


def test_the_page_of_a_kind_says_who_raises_it_or_that_nobody_does() -> None:
    made = pages()
    for kind in kinds():
        text = made[f"incidents/{kind}.md"]
        assert (NOBODY in text) == (not raised_by(kind) and kind != "monitor_health")
        assert all(f"[{name}](../detectors/{name}.md)" in text for name in raised_by(kind))


def test_tests_of_clients_declare_an_attack() -> None:
    assert all(kinds_of()[name] for name in WORDS)


def test_links_lead_to_pages_and_old_pages_go(tmp_path: Path) -> None:
    (tmp_path / "detectors").mkdir()
    (tmp_path / "detectors" / "gone.md").write_text("of a detector that was")
    assert stale(tmp_path) == ["detectors/gone.md"]
    write(tmp_path)
    assert stale(tmp_path) == [] and not (tmp_path / "detectors" / "gone.md").exists()
    for name, text in pages().items():
        for link in (part.partition(")")[0] for part in text.split("](")[1:]):
            assert ((tmp_path / name).parent / link).is_file(), f"{name}: {link}"
