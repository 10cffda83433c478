"""docs/configuration.md is what the declarations say."""

from __future__ import annotations

from pathlib import Path

from monitor.config.page import markdown
from monitor.config.schema import Config


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    mend = "write it anew: python -m monitor.config.page > docs/configuration.md"
    assert page.read_text(encoding="utf-8") == markdown(), mend


def test_every_section_and_nested_keys_are_on_it() -> None:
    text = markdown()
    assert all(f"## {name}" in text for name in Config.model_fields)
    for key in (
        "kafka.topics[].on_data_loss",
        "models.auto.max",
        "models.NAME.reference",
        "receivers.NAME.urls",
        "store.retention.evidence",
    ):
        assert f"| `{key}` |" in text
