"""How often Python looks for garbage in cycles.

Decoding makes millions of short-lived objects and no cycles, and every object that waits for its batch brings the
next look nearer: with Python's own thresholds a third of the time of decoding goes there. Looking is rarer here, and
what was loaded at the start is not looked at again.
"""

from __future__ import annotations

import gc

NEW_OBJECTS = 50_000
"""Containers made and not freed until the youngest generation is looked at."""
_YOUNG, _MIDDLE = 20, 50


def look_rarely() -> None:
    """Set the thresholds, for the rest of the process. Call when everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, _YOUNG, _MIDDLE)
