"""`python -m monitor.docs_pages`: writes docs/detectors/ and docs/incidents/ of a checkout from the declarations."""

from __future__ import annotations

from pathlib import Path

from monitor.detector_pages import detector_pages
from monitor.incident_pages import incident_pages


def pages() -> dict[str, str]:
    """Every generated page: path below docs/ → text."""
    folders = {"detectors": detector_pages(), "incidents": incident_pages()}
    return {f"{folder}/{name}": text for folder, named in folders.items() for name, text in named.items()}


def stale(docs: Path) -> list[str]:
    """Pages in the generated folders of `docs` that nothing writes any more, below docs/."""
    known = pages()
    found = (path.relative_to(docs).as_posix() for f in ("detectors", "incidents") for path in (docs / f).glob("*.md"))
    return sorted(name for name in found if name not in known)


def write(docs: Path) -> None:
    """Write all pages, and take away those of detectors and kinds that are gone."""
    for name, text in pages().items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in stale(docs):
        (docs / name).unlink()


if __name__ == "__main__":
    write(Path(__file__).parents[1] / "docs")
