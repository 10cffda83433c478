"""Parameters of the drift detector."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Params:
    """Parameters of the drift detector."""

    season_swing: float = 0.3
    """Daily swing in standard deviations that is not drift, assumed until `season_hours` of traffic were seen where the
    reference does not show it (ordered, two whole days). 0 declares that there is no season."""
    season_hours: float = 48.0
    """Hours of live traffic after which the assumed swing is dropped."""
    start_floor: float = 1.0
    """Share of the floor under the design effect at the start. Less is faster and trusts events to be independent."""
    memory: float = 0.0
    """Events the null remembers; 0 takes 4,000 · √(events a day / 100,000) between 1,000 and 8,000."""
