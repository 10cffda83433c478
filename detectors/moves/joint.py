"""How unusual a query is in several ways at once: far from the data, at the boundary, fields that do not go together.

Each alone may be common; all of them in one query are not. The sum of the surprises (−log p) of the three is compared
with the same sum of honest queries, so its p-value is as valid as theirs, whatever the dependence between them.
"""

from __future__ import annotations

import numpy as np

from detectors.base import F64

PARTS = (0, 1, 3)
"""Columns of the evidence that are joined: outlier, margin, dependence."""


def surprise(log_e: F64, bet: float) -> F64:
    """(n, …) −log p of bets `bet` p^(bet−1), 0 where nothing was bet."""
    told: F64 = np.where(log_e == 0.0, 0.0, np.maximum((log_e - np.log(bet)) / (1.0 - bet), 0.0))
    return told
