"""What a reference taught the drift detector, and the smallest changes that can page: part of `reference show`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from monitor.cli.output import print_line, print_table

if TYPE_CHECKING:
    from detectors.drift.predictive import PredictiveDrift
    from detectors.drift.smallest import Sensitivity, Smallest
    from monitor.panel import Panel

_PERIODS: Final = ("none", "day", "week")
_MOST: Final = 8
"""Seasons shown, the largest first."""
_MUCH: Final = 1.5
"""So many times the smallest change of independent events is a sensitivity worth a sentence."""


def learnt(panel: Panel) -> dict[str, Any] | None:
    """The season that the reference showed, and what can be found now; None where drift is not watched."""
    detector = panel.drift
    if detector is None:
        return None
    now = detector.sensitivity(panel.drift_alarms_a_day)
    return {
        "season": _season(detector),
        "smallest_changes": [_smallest(one) for one in now.found],
        "sensitivity_reduced": _reduced(now),
    }


def print_learnt(found: dict[str, Any]) -> None:
    """The same for people."""
    season = found["season"]
    print_line(f"Season: {season['told']}")
    if season["streams"]:
        rows = (
            (s["stream"], s["period"], f"{s['amplitude']:.2f} sd", f"{s['explained']:.0%}") for s in season["streams"]
        )
        print_table(
            f"Largest seasons of {season['seasonal']:,}",
            ("stream", "period", "swing", "explained of held-out days"),
            rows,
        )
    rows = ((s["change"], s["smallest"], s["after"], str(s["streams"])) for s in found["smallest_changes"])
    print_table("Smallest lasting changes that page", ("change", "from about", "after about", "#streams"), rows)
    if found["sensitivity_reduced"]:
        print_line(found["sensitivity_reduced"])


def _season(detector: PredictiveDrift) -> dict[str, Any]:
    calendar, streams = detector.calendar, detector.streams()
    if detector.params.season_swing <= 0:
        return {"told": "declared that there is none", "seasonal": 0, "streams": []}
    swing, hours = detector.params.season_swing, detector.params.season_hours
    if calendar is None:
        told = (
            "not learnt: that takes rows with times, in order, that cover two whole days; a daily swing of "
            f"{swing:g} sd is allowed for in the first {hours:g} hours of traffic"
        )
        return {"told": told, "seasonal": 0, "streams": []}
    order = sorted(range(len(streams)), key=lambda i: -calendar.amplitude[i])
    seasonal = [i for i in order if calendar.amplitude[i] > 0]
    shown = [
        {
            "stream": streams[i].name,
            "period": _PERIODS[calendar.period[i]],
            "amplitude": float(calendar.amplitude[i]),
            "explained": float(calendar.explained[i]),
        }
        for i in seasonal[:_MOST]
    ]
    told = (
        f"learnt from the reference for {len(seasonal):,} of {len(streams):,} streams"
        if seasonal
        else ("the reference shows none that holds on days left out")
    )
    return {"told": told, "seasonal": len(seasonal), "streams": shown}


def _smallest(one: Smallest) -> dict[str, Any]:
    known = not math.isnan(one.change)
    size = {
        "sd": f"{one.change:.2f} sd",
        "factor": f"x {one.change:.2f}",
        "r": f"{one.change:.2f}",
        "share": f"{100 * one.change:.1f} points",
    }
    return {
        "change": one.what,
        "unit": one.unit,
        "value": one.change if known else None,
        "events": int(one.events) if known else None,
        "smallest": size[one.unit] if known else "none",
        "after": f"{one.events:,.0f} events" if known else "",
        "streams": one.streams,
    }


def _reduced(now: Sensitivity) -> str | None:
    """Why a change of the mean must be much larger than if events were independent, if it must."""
    one, calm = next(((a, b) for a, b in zip(now.found, now.calm, strict=True) if a.unit == "sd"), (None, None))
    if one is None or calm is None or one.change <= _MUCH * calm.change:
        return None
    least = "no change of a mean is found" if math.isnan(one.change) else f"a mean must move {one.change:.2f} sd"
    less = f"Reduced sensitivity: {least}, {calm.change:.2f} sd would do if events were independent."
    if now.assumed:
        return (
            f"{less} The reference is too short, or its rows have no times: how much neighbouring events resemble "
            f"each other is assumed for {now.assumed:,} more events."
        )
    season = f" A season of {now.swing:.2f} sd is allowed for." if now.swing else ""
    return f"{less} Traffic is too variable: sums of events vary {now.design_effect:.1f} times as much as then.{season}"
