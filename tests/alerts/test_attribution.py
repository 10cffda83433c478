from __future__ import annotations

import pytest

from alerts.attribution import WORDS, attack_of
from alerts.taxonomy import kinds
from detectors.base import registry

TESTS = [name for name, cls in registry().items() if cls.account == "attack"]


@pytest.mark.parametrize("test", TESTS)
def test_every_test_of_queries_has_words_and_speaks_for_its_kind(test: str) -> None:
    assert test in WORDS
    assert attack_of(test, {test: 20.0}) == registry()[test].kind
    assert attack_of(test, {}) in kinds()


def test_most_evidence_decides() -> None:
    evidence = {"outlier_queries": 19.0, "near_duplicate_queries": 12.0, "margin_queries": 9.0}
    assert attack_of("outlier_queries", evidence) == "adversarial_input"
