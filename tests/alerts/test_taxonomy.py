"""Taxonomy: every kind has an entry, faults carry no attack ids, and the ids are well formed."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from alerts.taxonomy import SCHEMES, kinds, taxonomy_of
from monitor.config.receivers import IncidentKind


def test_the_kinds_are_those_the_configuration_knows() -> None:
    assert set(kinds()) == set(get_args(IncidentKind))


@pytest.mark.parametrize("kind", kinds())
def test_ids_are_well_formed(kind: str) -> None:
    ids = taxonomy_of(kind)
    assert tuple(ids) == SCHEMES
    assert all(re.fullmatch(r"AML\.T\d{4}(\.\d{3})?", i) for i in ids["mitre_atlas"])
    assert all(re.fullmatch(r"ML\d{2}", i) for i in ids["owasp_ml"])
    assert all(re.fullmatch(r"NISTAML\.\d{2,3}", i) for i in ids["nist_aml"])


@pytest.mark.parametrize("kind", ["feature_drift", "data_quality", "performance_drop", "monitor_health"])
def test_drift_and_faults_carry_no_attack_id(kind: str) -> None:
    assert not any(taxonomy_of(kind).values())


def test_ids_of_the_finding_come_first_and_only_once() -> None:
    ids = taxonomy_of("model_extraction", ["AML.T0005.001", "AML.T0024.002"])["mitre_atlas"]
    assert ids == ["AML.T0005.001", "AML.T0024.002"]


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        taxonomy_of("surprise")
