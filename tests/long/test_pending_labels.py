"""What predictions cost that wait for labels: time, bytes written, bytes resident, and a restart.

`.venv/bin/python -m tests.long.test_pending_labels` prints the figures of docs/measured.md.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from monitor.intake.joins import Asked, JoinSettings, LabelJoin, Told, id_keys
from monitor.state.codec import decode, encode

N, CUT = 1_000_000, 1_024
COMMIT = 10
"""Cuts between two commits."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in µs of CPU, sizes in bytes, of one prediction or label; the restart in seconds."""

    ask: float
    ask_pages: float
    ask_bytes: float
    tell: float
    tell_pages: float
    tell_bytes: float
    resident: float
    arrays: float
    decode: float
    restore: float
    pages: int


def measure(n: int) -> Figures:
    """`n` predictions of five classes with scores, then a label for each of them in random order."""
    rng = np.random.default_rng(1)
    ids = [f"p-{i}" for i in range(n)]
    order = rng.permutation(n).tolist()
    join = LabelJoin(JoinSettings(id_key=b"k" * 32))
    stored: dict[str, bytes] = {}
    cuts = [_Cut(ids[i : i + CUT], i, rng, False) for i in range(0, n, CUT)]
    gc.collect()
    before = resident()
    ask, ask_pages, ask_bytes = _run(join, cuts, stored)
    gc.collect()
    held = resident() - before - sum(map(len, stored.values()))
    pending = join.pending
    assert pending.rows == n
    arrays = sum(column.nbytes for column in pending._columns.values()) + pending._table.nbytes + pending._marks.nbytes
    began = time.process_time()
    pages = {name: decode(data, 1) for name, data in stored.items()}
    decoded = time.process_time()
    again = LabelJoin(JoinSettings(id_key=b"k" * 32))
    again.restore(pages)
    restored = time.process_time()
    assert again.pending.rows == n
    cuts = [_Cut([ids[k] for k in order[i : i + CUT]], n, rng, True) for i in range(0, n, CUT)]
    tell, tell_pages, tell_bytes = _run(join, cuts, {})
    assert join.counts.matched == n
    per = 1e6 / n
    return Figures(
        ask * per, ask_pages * per, ask_bytes / n, tell * per, tell_pages * per, tell_bytes / n, held / n,
        arrays / n, decoded - began, restored - decoded, len(pages),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cut:
    """Predictions, or where `told` labels, of these ids; the first is event number `start`."""

    ids: list[str]
    start: int
    rng: np.random.Generator
    told: bool

    def join(self, join: LabelJoin) -> None:
        n = 0 if self.told else len(self.ids)
        at = np.arange(self.start, self.start + n, dtype=np.float64) / 10
        answer = self.rng.integers(0, 5, n).astype(np.float64)
        one = np.ones(n)
        kind = np.ones(n, np.uint8)
        keys = id_keys(self.ids, b"k" * 32)
        score = self.rng.uniform(0.5, 1, n)
        asked = Asked(keys[:n], at, answer, kind, score, one, np.zeros(n, np.int64), np.zeros(n, np.uint16))
        m = len(self.ids) - n
        later = np.full(m, self.start * 0.1)
        mine, nothing = np.ones(m, np.uint8), np.zeros(m, np.uint8)
        label = self.rng.integers(0, 5, m).astype(np.float64)
        told = Told(keys[n:], np.zeros(m, np.int64), later, label, mine, np.ones(m), np.zeros(m), nothing)
        join.add(asked, told, float(at[-1]) if n else self.start * 0.1)


def _run(join: LabelJoin, cuts: list[_Cut], stored: dict[str, bytes]) -> tuple[float, float, float]:
    """CPU seconds of joining and of pages, and bytes of pages."""
    joining = paging = 0.0
    written = 0
    for i, cut in enumerate(cuts, 1):
        began = time.process_time()
        cut.join(join)
        joined = time.process_time()
        joining += joined - began
        if i % COMMIT == 0 or i == len(cuts):
            packed = {name: encode(page, 1) for name, page in join.dirty().items()}
            written += sum(map(len, packed.values()))
            stored |= packed
            paging += time.process_time() - joined
    return joining, paging, written


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("VmRSS:"))


@pytest.mark.long
def test_what_waits_is_small_and_quick() -> None:
    figures = measure(N)
    assert figures.resident < 70 and figures.ask < 20 and figures.tell < 20 and figures.restore < 5


def main() -> None:
    """The sentence."""
    f = measure(N)
    print(
        f"join {f.ask:.1f} µs a prediction and {f.tell:.1f} µs a label, state pages {f.ask_pages:.1f} and "
        f"{f.tell_pages:.1f} µs; {f.ask_bytes:.1f} bytes written a prediction, {f.tell_bytes:.0f} a label in random "
        f"order; {f.arrays:.0f} bytes a prediction in arrays, {f.resident:.0f} resident. "
        f"Restart: {f.decode:.2f} s to decode {f.pages:,} pages and {f.restore:.2f} s to restore them"
    )


if __name__ == "__main__":
    main()
