"""View "attackers": clients that incidents of attacks are open about, as the panel knows them.

A calibration that begins anew, because a reference was approved while an attack went on, must not learn from them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.base import Batch, Bool, Views, view

ATTACKERS: Final = "attackers"
"""Name of the view: a frozenset of clients. The panel puts it; without one nobody is known."""


@view(ATTACKERS)
def _nobody(views: Views) -> frozenset[str]:
    return frozenset()


def trusted(batch: Batch, views: Views) -> Bool:
    """(n,) which events are not of a client that is named as an attacker."""
    attackers: frozenset[str] = views.get(ATTACKERS)
    out: Bool = np.ones(len(batch), np.bool_)
    if attackers:
        named = np.array([client in attackers for client in batch.clients], np.bool_)
        known = batch.client >= 0
        out[known] = ~named[batch.client[known]]
    return out
