"""What of a model can page, what cannot yet, and from when: part of `reference show`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from monitor.panel import Panel
    from monitor.watch import Learning

ABSORBED: Final = 1_000
"""Live events during which predictive_drift takes a moderate change for what is usual."""


def learning(state: Learning) -> dict[str, Any]:
    """Rows of the provisional reference so far, and when it will be complete if events go on coming as they did."""
    from alerts.times import rfc3339_or_none

    return {"rows": state.rows, "of": state.of, "complete_at": rfc3339_or_none(state.expected_end)}


def while_learning(found: dict[str, Any]) -> list[dict[str, Any]]:
    """No detector runs before there is a reference."""
    from detectors.base import registry

    why = f"the reference is being learnt: {found['rows']:,} of {found['of']:,} rows"
    return [_row(name, False, "no", why, found["complete_at"]) for name in registry()]


def with_reference(panel: Panel, judged: int, stopped: Collection[str]) -> list[dict[str, Any]]:
    """Each detector of the panel. `judged` counts live events; `stopped` names detectors that an error stopped."""
    from detectors.base import registry

    provisional = panel.context.reference.origin == "live"
    rows = []
    for name in panel.running:
        raises = registry()[name].raises
        if name in stopped:
            rows.append(_row(name, False, "no", "stopped by an error; a restart tries it again", None))
        elif raises == ():
            rows.append(_row(name, True, "no", "raises nothing itself: other detectors build on it", None))
        elif (raises or (registry()[name].kind,)) == ("unusual_client",):
            rows.append(_row(name, True, "no", "tells at severity info only", None))
        elif name == "predictive_drift" and judged < ABSORBED:
            why = f"large changes only, until {ABSORBED:,} live events were seen: {judged:,} so far"
            rows.append(_row(name, True, "partly", why, None))
        elif panel.waits_for(name):
            why = f"its noise is being learnt: some {panel.waits_for(name):,} live events more"
            rows.append(_row(name, True, "no", why, None))
        else:
            why = "against a provisional reference, until one is approved" if provisional else ""
            rows.append(_row(name, True, "yes", why, None))
    return rows + [_row(name, False, "no", why, None) for name, why in panel.off.items()]


def _row(detector: str, runs: bool, can_page: str, reason: str, since: str | None) -> dict[str, Any]:
    return {"detector": detector, "runs": runs, "can_page": can_page, "reason": reason, "from": since}
