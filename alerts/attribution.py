"""From the tests that speak against a client to the name of the attack.

Near duplicates and small margins are the steps of a search for an adversarial input; inputs far from the data, or
whose fields do not belong together, are probes that a copy is learnt from; repeats of training rows ask who was in
the training data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alerts.taxonomy import taxonomy_of

_SPEAKS_FOR: Final = {
    "near_duplicate_queries": "adversarial_input",
    "margin_queries": "adversarial_input",
    "outlier_queries": "model_extraction",
    "independent_queries": "model_extraction",
    "finer_queries": "model_extraction",
    "training_row_queries": "membership_inference",
}
WORDS: Final = {
    "near_duplicate_queries": "queries close to an earlier one",
    "margin_queries": "queries at the decision boundary",
    "outlier_queries": "queries far from the reference data",
    "independent_queries": "queries whose fields do not belong together",
    "finer_queries": "queries with more decimals than the data",
    "training_row_queries": "queries that repeat training rows",
}
"""What each test counts, as a why says it."""


TRAINING_ROWS: Final = "training_row_queries"
"""The test that names by itself: no honest look-alike repeats training rows."""
SECOND_STAGE: Final = "query_moves"
"""What a finding of the second stage gives as its detector."""
_MOVE_SPEAKS_FOR: Final = {
    "flip": "adversarial_input",
    "line": "adversarial_input",
    "mirror": "adversarial_input",
    "probe": "adversarial_input",
    "twin": "adversarial_input",
    "follow": "adversarial_input",
    "near": "adversarial_input",
    "margin": "adversarial_input",
    "outlier": "model_extraction",
    "dependence": "model_extraction",
    "grid": "model_extraction",
    "joint": "model_extraction",
    "sweep": "model_extraction",
}
MOVE_WORDS: Final = {
    "flip": "close to an earlier one of its own changed the answer",
    "line": "lie on lines between two of its own earlier queries",
    "mirror": "mirror the one before around a point already asked",
    "probe": "change one number hardly, field by field",
    "twin": "mirror the one before in a single field",
    "follow": "go on from the one before where it had come closer to another answer",
    "near": "begin anew, close to queries of other clients",
    "margin": "begin anew, at the decision boundary",
    "outlier": "begin anew, far from the reference data",
    "dependence": "begin anew, with fields that do not belong together",
    "grid": "begin anew, with values between those of the data, as mixtures of real records have",
    "joint": "begin anew, unusual in several ways at once",
    "sweep": "change one or two fields of one record",
}
"""What the queries did that name an attacker, as a why says it after "312 of 340 queries"."""
SHARED: Final = "shared"
"""Evidence against a client that acts like a named one."""
SHARED_WORDS: Final = "lie close to queries of the campaign that began with client"
"""What its queries did; the name of that client follows."""
LOOK_WORDS: Final = {
    "steady": ("it looks like a steady source", "follow from one another in small steps"),
    "variations": ("it looks like variations of a record", "are copies of one record with fields masked"),
    "one field": ("it looks like one field at a time", "differ from an earlier one in one or two fields"),
    "rescaled": ("it looks like the same data on another scale", "were made from no other"),
    "other": ("it looks like another mix of inputs", "were made from no other"),
}
"""What an unusual client looks like, and what its queries do."""


def attack_of_move(move: str) -> str:
    """The kind of attack that evidence of the second stage speaks for."""
    return _MOVE_SPEAKS_FOR[move]


def atlas_of(kind: str) -> tuple[str, ...]:
    """MITRE ATLAS ids of a kind of attack."""
    return tuple(taxonomy_of(kind)["mitre_atlas"])


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
