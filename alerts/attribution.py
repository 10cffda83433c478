"""From the tests that speak against a client to the name of the attack.

Near duplicates and small margins are the steps of a search for an adversarial input; inputs far from the data, or
whose fields do not belong together, are probes that a copy is learnt from; repeats of training rows ask who was in
the training data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SPEAKS_FOR: Final = {
    "near_duplicate_queries": "adversarial_input",
    "margin_queries": "adversarial_input",
    "outlier_queries": "model_extraction",
    "independent_queries": "model_extraction",
    "training_row_queries": "membership_inference",
}
WORDS: Final = {
    "near_duplicate_queries": "queries close to an earlier one",
    "margin_queries": "queries at the decision boundary",
    "outlier_queries": "queries far from the reference data",
    "independent_queries": "queries whose fields do not belong together",
    "training_row_queries": "queries that repeat training rows",
}
"""What each test counts, as a why says it."""


def attack_of(test: str, evidence: Mapping[str, float]) -> str:
    """The kind of attack: the one for which most evidence speaks, given that `test` crossed its threshold.

    `evidence` holds the log-evidence of every test against the client.
    """
    total: dict[str, float] = {}
    for name, log_e in evidence.items():
        kind = _SPEAKS_FOR.get(name)
        if kind is not None:
            total[kind] = total.get(kind, 0.0) + log_e
    return max(sorted(total), key=lambda kind: total[kind], default=_SPEAKS_FOR[test])
