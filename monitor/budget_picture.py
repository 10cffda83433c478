"""Draws the evidence of a real run: `python -m monitor.budget_picture docs/evidence.svg`.

Simulated applicants of a credit model, 100,000 a day, whose income is a tenth higher from one event on. The line is
the capital of all bets of the model's account; at 1 it is an alarm, and all bets begin anew.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from alerts.incidents import Incident
from detectors.base import Finding, Rows, registry
from monitor.demo.traffic import MODEL, CreditTraffic
from monitor.intake.columns import build_batch, build_reference, infer_schema
from monitor.intake.events import Event, EventType
from monitor.lineup import PanelSettings
from monitor.panel import Panel

EVENTS: Final = 20_000
CHANGE: Final = 15_000
FACTOR: Final = 1.1
PER_DAY: Final = 100_000.0
_STEP = 25
_FROM, _TO = 13_000, 17_000
_LOWEST = 1e-5
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 340, 70, 20, 30, 50


@dataclass(frozen=True, slots=True)
class Run:
    """Capital after every 25th event (x, y), and what alarmed: event, onset in events, its why."""

    capital: list[tuple[int, float]]
    alarm: int
    onset: float
    why: str


def play() -> Run:
    """The run. RuntimeError when nothing alarmed."""
    credit = CreditTraffic(11)
    rows = [Event(EventType.PREDICTION, 0.0, features=dict(r["features"])) for r in credit.reference(1_000)]
    schema = infer_schema(rows)
    only = {name: {"enabled": name == "predictive_drift"} for name in registry()}
    subject = f"model:/{MODEL}"
    panel = Panel(subject, MODEL, build_reference(rows, schema, "file", subject), PanelSettings(detectors=only))
    events = [msgspec.convert(dict(e, time=0.0), Event) for e in _live(credit)]
    found: list[Finding] = []

    def report(finding: Finding, batch: Rows) -> Incident | None:
        found.append(finding)
        return None

    capital = []
    for begin in range(0, EVENTS, _STEP):
        part = events[begin : begin + _STEP]
        for i, event in enumerate(part, begin):
            event.time = i * 86_400 / PER_DAY
        places = [("t", 0, begin + i, 0) for i in range(len(part))]
        panel.detect(build_batch(subject, begin, part, places, schema), report)
        capital.append((begin + len(part), 1.0 if found else panel.account.capital))
        if found:
            break
    if not found:
        raise RuntimeError("nothing alarmed: the picture would show nothing")
    first = found[0]
    mean = next(m for m in first.measures if m.statistic != "evidence")
    why = f"{mean.field}: {mean.unit} {mean.expected:,.0f} → {mean.observed:,.0f} over {mean.n} events"
    return Run(capital, first.position + 1, first.onset * PER_DAY / 86_400, why)


def draw(run: Run) -> str:
    """The run as SVG, capital on a logarithmic axis."""
    texts = [
        _text(_LEFT, 18, "Evidence in the account of one model (sum over all its bets)", "start", 14),
        _text(_LEFT, _HEIGHT - 10, f"predictions seen. The alarm says: {run.why}", "start"),
    ]
    lines = []
    for power in range(round(math.log10(_LOWEST)), 1):
        y = _y(10.0**power)
        lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        texts.append(_text(_LEFT - 8, y + 4, f"{10.0**power:.{-power}f}", "end"))
    for n in range(_FROM, _TO + 1, 1_000):
        texts.append(_text(_x(n), _HEIGHT - 30, f"{n:,}", "middle"))
    points = " ".join(f"{_x(n):.1f},{_y(c):.1f}" for n, c in run.capital if n >= _FROM)
    marks = [
        (CHANGE, "#888", "income rises by a tenth", "end", -6),
        (run.onset, "#2a7", "onset as told", "start", 6),
        (run.alarm, "#c33", f"alarm, {run.alarm - CHANGE} events after the change", "start", 6),
    ]
    for k, (at, colour, label, anchor, gap) in enumerate(marks):
        x = _x(at)
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{colour}" '
                     f'stroke-dasharray="4 3"/>')  # fmt: skip
        texts.append(_text(x + gap, _HEIGHT - _BOTTOM - 14 - 18 * k, label, anchor, 12, colour))
    top = _y(1.0)
    lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{top:.1f}" y2="{top:.1f}" stroke="#c33"/>')
    lines.append(f'<polyline points="{points}" fill="none" stroke="#246" stroke-width="1.5"/>')
    body = "\n".join([*lines, *texts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _live(credit: CreditTraffic) -> list[dict[str, object]]:
    """Events whose applicants earn more from CHANGE on."""
    made: list[dict[str, object]] = []
    for i, event in enumerate(credit.events(EVENTS, 0.0, 1.0)):
        features = dict(event["features"])
        if i >= CHANGE:
            features["income"] *= FACTOR
        made.append({"type": "prediction", "features": features})
    return made


def _x(event: float) -> float:
    return _LEFT + (event - _FROM) / (_TO - _FROM) * (_WIDTH - _LEFT - _RIGHT)


def _y(capital: float) -> float:
    share = math.log10(max(capital, _LOWEST) / _LOWEST) / -math.log10(_LOWEST)
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, text: str, anchor: str, size: int = 12, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{text}</text>'


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the run and write the picture."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    Path(given[0]).write_text(draw(play()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
