"""An honest stream with the inputs that real models have: an id in each event, a column that is nearly always missing,
tails without a mean, thousands of categories, and the hour of the day, of which the reference shows eight.

`.venv/bin/python -m tests.long.test_messy_stream --seeds 0:6` prints the figures of docs/measured.md.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerts.incidents import Incident
from monitor.backtest import run_backtest

ROWS, EVENTS, A_DAY = 2_000, 40_000, 6_000
START = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
CLOCK = ("hour", "weekday")


def events(seed: int, clock: bool) -> list[dict[str, Any]]:
    """ROWS + EVENTS predictions, fewer at night, a third of one client. `clock`: hour and weekday are inputs."""
    rng = np.random.default_rng(seed)
    n = ROWS + EVENTS
    client, sku, code = rng.zipf(1.5, n) % 300, rng.zipf(1.3, n) % 5_000, rng.choice(4, n, p=[0.9, 0.05, 0.04, 0.01])
    age, at, made = np.clip(rng.normal(40, 12, n), 18, 90).astype(int), START, []
    for i in range(n):
        rate = A_DAY / 86_400 * (1 + 0.7 * math.sin(2 * math.pi * (at / 3_600 - 9) / 24))
        at += rng.exponential(1 / rate)
        features = {
            "session": f"{rng.integers(0, 2**62):016x}",
            "constant": 1.0,
            "mostly_missing": float(rng.normal()) if rng.random() < 0.02 else None,
            "amount": round(float(rng.pareto(1.2)) * 10, 2),
            "flag": bool(rng.random() < 0.03),
            "code": int((200, 201, 404, 500)[code[i]]),
            "sku": f"s{sku[i]}",
            "shop": f"shop{rng.integers(0, 40)}",
            "mostly_zero": 0.0 if rng.random() < 0.85 else float(rng.lognormal(2, 1)),
            "age": int(age[i]),
            "ratio": float(rng.beta(0.5, 0.5)),
            "big": float(rng.normal()) * 1e9,
            "tiny": float(rng.normal()) * 1e-9,
            "number_as_text": str(rng.integers(0, 9)),
        }
        if rng.random() < 0.7:
            features["balance"] = round(float(rng.gamma(0.3)) * 100, 2)
        if clock:
            features |= {"hour": int(at / 3_600 % 24), "weekday": int(at // 86_400 % 7)}
        score = 1 / (1 + math.exp(-(int(age[i]) - 40) / 10 + float(rng.normal()) / 2))
        made.append(
            {
                "type": "prediction", "event_id": f"e{i}", "ts": at, "model": "messy", "client": f"c{client[i]}",
                "features": features, "prediction": "yes" if score > 0.5 else "no",
                "scores": {"yes": score, "no": 1 - score},
            }
        )  # fmt: skip
    return made


def incidents(seed: int, clock: bool) -> list[Incident]:
    """What `backtest` opens at severity warning and above."""
    rows = events(seed, clock)
    with tempfile.TemporaryDirectory() as folder:
        reference, live = Path(folder, "reference.jsonl"), Path(folder, "events.jsonl")
        reference.write_text("".join(json.dumps(e) + "\n" for e in rows[:ROWS]))
        live.write_text("".join(json.dumps(e) + "\n" for e in rows[ROWS:]))
        found = run_backtest([live], reference).incidents
    return [i for i in found if i.severity_max != "info"]


@pytest.mark.long
def test_odd_inputs_are_no_drift_and_no_client_is_an_attacker() -> None:
    found = [i.why for seed in range(2) for i in incidents(seed, clock=False)]
    assert len(found) <= 1, found


@pytest.mark.long
def test_the_hour_of_the_day_is_a_few_incidents() -> None:
    found = [i.why for i in incidents(0, clock=True)]
    assert 1 <= len(found) <= 8, found


def main() -> None:
    """Incidents by seed, without and with the hour of the day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:6", help="FIRST:LAST, the last excluded")
    seeds = range(*(int(x) for x in parser.parse_args().seeds.split(":")))
    for clock in (False, True):
        print("with hour and weekday" if clock else "without", [len(incidents(s, clock)) for s in seeds], flush=True)


if __name__ == "__main__":
    main()
