"""The first thing to do about an incident of each kind, in one sentence. The runbooks say the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FIRST_STEP: Final[Mapping[str, str]] = {
    "data_quality": "Ask who owns the named field's source what was released since the onset; roll back or fix it.",
    "schema_change": "Check that the new version's field set is meant; if so, approve a reference of it.",
    "feature_drift": "Find what changed upstream at the onset; if it stays, retrain and approve a new reference.",
    "prediction_drift": "Compare version and inputs before and after the onset; roll back if it is the model.",
    "multivariate_drift": "Look at the named pair of fields together; a join or a unit upstream may have changed.",
    "concept_drift": "Compare fresh labels with predictions; retrain, and review decisions by hand until then.",
    "performance_drop": "Look at the segment that errs most since the onset; roll back or review by hand.",
    "adversarial_input": "Hold back the named client's granted decisions for review; say nothing to the client yet.",
    "model_extraction": "Cap the named client's query rate and ask its owner what it does; answer labels, not scores.",
    "membership_inference": "Cap the named client; round or withhold scores; tell the owner of the training data.",
    "unusual_client": "Nothing at once: ask the client's owner whether this use is expected, and declare it if so.",
    "feedback_poisoning": "Stop training on labels from the named source since the onset, and check a sample by hand.",
    "traffic_anomaly": "Check deployments and callers at the onset: a caller that loops or is gone explains most.",
    "error_burst": "Read the serving system's errors since the onset; roll back what was released before it.",
    "latency_anomaly": "Check load and replicas of the serving system since the onset.",
    "credential_attack": "Lock the named principal, rotate its credentials and check what it reached since the onset.",
    "access_policy": "Ask the named principal's owner; withdraw the access if it is not meant.",
    "access_novelty": "Ask the named principal's owner whether the new place or use is theirs.",
    "monitor_health": "Read the why: it names the part of ModelWarden that needs a hand, and what mends it.",
}
