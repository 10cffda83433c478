from __future__ import annotations

import pytest

from monitor.intake.events import Decoded, Record
from monitor.intake.formats.base import TopicRules, formats, register


def test_formats_are_found_by_walking_the_package() -> None:
    found = formats()
    assert "native" in found
    assert list(found) == sorted(found)
    assert all(name == form.name for name, form in found.items())


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="native"):

        @register
        class _Second:
            name = "native"

            def decode(self, record: Record, settings: TopicRules) -> Decoded:
                return Decoded([], [])
