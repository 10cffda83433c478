"""The sum rule: at most `budget` false alarms per `per` seconds, whatever the number of streams and detectors.

e-SR rule (Shin, Ramdas & Rinaldo, arXiv 2203.03532; multistream: Dandapanthula & Ramdas, arXiv 2501.04130). Every bet
holds a capital M. A block first injects the bet's share of the budget that its time has earned, then multiplies by its
e-value: M ← (M + w·dB)·E·leak. When the capital of all bets of all detectors together reaches 1, that is an alarm, and
all capital is reset. While nothing changes, ΣM + alarms − budget·time/per is a supermartingale, so the expected number
of alarms by any time is within budget under any dependence between streams.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from detectors.base import F64, I64, NO_COLUMN, Alarm, Bets, Bool, Evidence, Latch, Page, StateError, Stream, Verdict

ALARM = 1.0
MAX_CAPITAL = 1e6
MAX_INJECTION = 0.001
"""Of the budget, at most this much a block. A model of few events a day would otherwise hoard enough without any
evidence to reach an alarm, and would spend all of its budget on noise within a few thousand events; less injection
only lowers capital."""
NAMED = 0.9
"""The smallest set of streams that carries this share of the capital is named."""
RETURNS, WEEK, DAY = 3, 7 * 86_400.0, 86_400.0
"""What has alarmed so many times in a week comes and goes by itself, such as the hour where the reference shows few of
them: from the next alarm on its latch opens only after a whole day of quiet, and one incident tells of it."""
_MOST_RECENT = 64
RECOVERED = math.log(20) + 2
"""A latch opens when the mirrored CUSUM of its recovery reaches 20 : 1 and two nats."""


@dataclass(slots=True)
class _Member:
    """One registered detector. `weight` and `latched` by bet and stream, `idle_*` by distinct leak."""

    streams: tuple[Stream, ...]
    bets: Bets
    share: float
    capital: F64
    latched: Bool
    opening: Bool
    """Latched until `open_waiting`, though their latch is open."""
    inject: F64
    leaks: list[float]
    leak_of: I64
    idle_inject: list[float]
    idle: list[float]
    """Capital that the same injections would be worth without any evidence (all E = 1)."""
    weight: float = 0.0
    """Sum of `inject`."""
    clock: float = 0.0
    """Seconds of watermark time that it has judged."""
    total: float = 0.0


@dataclass(slots=True)
class _Held:
    """A latch with the state of its recovery. Latches of one `alarm` open together, when the `primary` one does."""

    latch: Latch
    alarm: int
    primary: bool
    gain: float = field(default=0.0)
    quiet: float = 0.0
    """Seconds for which the gain has to stay where a latch opens; `since` then, by the account's clock (-1: it is
    below)."""
    since: float = -1.0


class SumAccount:
    """The account of one subject. Register all detectors first, then judge evidence in the order it comes."""

    def __init__(self, budget: float, per: float, most: float = MAX_INJECTION) -> None:
        """`budget` false alarms (> 0) in `per` seconds (> 0), of which a block is paid no more than `most`."""
        if not (budget > 0 and per > 0):
            raise ValueError(f"a budget of {budget} alarms per {per} s: both must be above 0")
        self.rate = budget / per
        self._most = most
        self.alarms = 0
        """Alarms spent so far."""
        self.injected = 0.0
        """Budget injected so far, in alarms."""
        self._members: dict[str, _Member] = {}
        self._outputs: frozenset[str] = frozenset()
        self._held: list[_Held] = []
        self._recent: list[tuple[str, float]] = []
        """Fields that led an alarm, and when by the account's clock; the last week's."""
        self._changed: set[str] = set()
        self._touched: set[str] = set()

    @property
    def capital(self) -> float:
        """Capital of all bets of all detectors: an alarm comes at 1."""
        return sum(m.total for m in self._members.values())

    @property
    def clock(self) -> float:
        """Seconds of watermark time that were judged, by the detector that is ahead."""
        return max((m.clock for m in self._members.values()), default=0.0)

    @property
    def latches(self) -> tuple[Latch, ...]:
        """The latches that are closed, oldest first."""
        return tuple(h.latch for h in self._held)

    def members(self) -> dict[str, tuple[tuple[Stream, ...], float]]:
        """The registered detectors: their streams, and their share relative to the others'."""
        return {name: (m.streams, m.share) for name, m in self._members.items()}

    def register(
        self, detector: str, streams: Sequence[Stream], bets: Bets, share: float, outputs: Iterable[str] = ()
    ) -> None:
        """Give `detector` its part of the budget: `share` relative to the other detectors'.

        `outputs` names the model's output columns: they are functions of every input. ValueError for a detector
        that is registered already, and for bets that do not fit the streams.
        """
        if detector in self._members:
            raise ValueError(f"{detector} is registered already")
        _check_bets(detector, len(streams), bets)
        leaks, leak_of = np.unique(bets.leak, return_inverse=True)
        size, none = len(bets.weight), [0.0] * len(leaks)
        self._members[detector] = _Member(
            tuple(streams), bets, share, np.zeros(size), np.zeros(len(streams), np.bool_),
            np.zeros(len(streams), np.bool_), np.zeros(size),
            leaks.tolist(), np.asarray(leak_of, np.int64), none, none,
        )  # fmt: skip
        self._outputs |= frozenset(outputs)
        for member in self._members.values():
            self._split(member)

    def judge(self, evidence: Evidence) -> Verdict:
        """Judge blocks until one alarms (or, for role "recovery", until a latch opens).

        KeyError for a detector that is not registered; ValueError for evidence of the wrong shape or not a number.
        """
        member = self._members[evidence.detector]
        columns = len(evidence.leading) if evidence.role == "recovery" else len(member.bets.weight)
        largest = float(evidence.log_e.max(initial=-math.inf))
        if evidence.log_e.shape != (len(evidence.elapsed), columns) or math.isnan(largest):
            wrong = f"{evidence.log_e.shape}, of which {int(np.isnan(evidence.log_e).sum())} are not"
            wanted = f"{len(evidence.elapsed)} × {columns} numbers"
            raise ValueError(f"evidence of {evidence.detector} ({evidence.role}) is not {wanted}: {wrong}")
        if evidence.role == "recovery":
            return self._recover(evidence)
        return self._alarm(evidence, member, largest)

    def release(self, key: str) -> Verdict:
        """Open a latch by hand (acknowledged, new reference), with those of the same alarm. Every detector of the
        subject should hear the verdict. KeyError when there is no such latch."""
        held = next((h for h in self._held if h.latch.key == key), None)
        if held is None:
            raise KeyError(f"no latch {key!r}")
        return Verdict(held.latch.detector, 0, recovered=self._open(held.alarm))

    def open_waiting(self) -> None:
        """Let the streams bet again whose latch another detector's recovery has opened. To be called when all detectors
        have judged the events up to that recovery: before, they would judge what came ahead of it."""
        for member in self._members.values():
            if member.opening.any():
                member.latched &= ~member.opening
                member.opening[:] = False
                self._split(member)

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call: `totals`, and one `capital.<detector>` each."""
        pages = {}
        for detector in sorted(self._changed):
            member = self._members[detector]
            pages[f"capital.{detector}"] = {
                "capital": member.capital.copy(), "idle": np.array(member.idle), "total": np.array([member.total]),
                "clock": np.array([member.clock]),
            }  # fmt: skip
        if self._changed or self._touched:
            held = json.dumps([asdict(h) for h in self._held]).encode()
            pages["totals"] = {
                "alarms": np.array([self.alarms], np.int64),
                "injected": np.array([self.injected]),
                "latches": np.frombuffer(held, np.uint8).copy(),
                "recent": np.frombuffer(json.dumps(self._recent).encode(), np.uint8).copy(),
            }
        self._changed.clear()
        self._touched.clear()
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the pages of an account with the same detectors. StateError, and no change, when they do not fit."""
        found = {name.removeprefix("capital."): page for name, page in pages.items() if name.startswith("capital.")}
        for detector, page in found.items():
            member = self._members.get(detector)
            if member is None:
                raise StateError(f"stored capital belongs to {detector}, which does not run")
            if page["capital"].shape != member.capital.shape or page["idle"].shape != (len(member.idle),):
                raise StateError(
                    f"stored capital of {detector} is of {len(page['capital'])} bets, not {len(member.capital)}"
                )
        held = _held_from(pages["totals"], self._members) if "totals" in pages else []
        for detector, page in found.items():
            member = self._members[detector]
            member.capital, member.idle = page["capital"].astype(np.float64), page["idle"].tolist()
            member.total = float(page["total"][0])
            member.clock = float(page["clock"][0])
        if "totals" in pages:
            self.alarms, self.injected = int(pages["totals"]["alarms"][0]), float(pages["totals"]["injected"][0])
            self._recent = [(str(name), float(at)) for name, at in json.loads(pages["totals"]["recent"].tobytes())]
        self._held = held
        for member in self._members.values():
            member.latched[:] = member.opening[:] = False
        for h in held:
            self._members[h.latch.detector].latched[list(h.latch.streams)] = True
        for member in self._members.values():
            self._split(member)

    # --- alarms ----------------------------------------------------------------------------------------------------

    def _alarm(self, evidence: Evidence, member: _Member, largest: float) -> Verdict:
        others = sum(m.total for m in self._members.values() if m is not member)
        self._changed.add(evidence.detector)
        growth = np.exp(np.minimum(evidence.log_e, 700.0) if largest > 700 else evidence.log_e)
        growth *= member.bets.leak
        for i, elapsed in enumerate(evidence.elapsed.tolist()):
            member.clock += max(elapsed, 0.0)
            earned = min(max(elapsed, 0.0) * self.rate, self._most)
            _grow(member, growth[i], earned)
            self.injected += member.weight * earned
            if others + member.total >= ALARM:
                return self._raise(evidence, i)
        return Verdict(evidence.detector, len(evidence.elapsed))

    def _raise(self, evidence: Evidence, block: int) -> Verdict:
        carriers = [
            (float(c), detector, j)
            for detector, member in self._members.items()
            for j, c in enumerate(np.bincount(member.bets.stream, member.capital, len(member.streams)).tolist())
            if c > 0
        ]
        carriers.sort(key=lambda x: -x[0])
        capital = sum(c for c, _, _ in carriers)
        named, carried = [], 0.0
        for c, detector, j in carriers:
            named.append((detector, j))
            carried += c
            if carried >= NAMED * capital:
                break
        leader, leading = named[0]
        own = self._members[leader]
        idle = sum(own.idle)
        times = self._times("\x1f".join(own.streams[leading].fields))
        alarm = Alarm(
            detector=leader,
            streams=tuple(j for d, j in named if d == leader),
            leading=leading,
            block=block,
            row=int(evidence.row[block]),
            position=int(evidence.position[block]),
            ratio=own.total / idle if idle > 0 else math.inf,
            leading_bet=_strongest_bet(own, leading),
            times=times,
        )
        self.alarms += 1
        latched = self._latch(named, carriers, DAY if times > RETURNS else 0.0)
        for detector, member in self._members.items():
            member.capital[:] = 0.0
            member.idle = [0.0] * len(member.leaks)
            member.total = 0.0
            self._split(member)
            self._changed.add(detector)
        return Verdict(evidence.detector, block + 1, alarm, latched)

    def _times(self, fields: str) -> int:
        """How many alarms these fields have led in the last week, this one included."""
        now = self.clock
        self._recent = [(name, at) for name, at in self._recent if now - at < WEEK][-_MOST_RECENT:]
        self._recent.append((fields, now))
        return sum(name == fields for name, _ in self._recent)

    def _latch(
        self, named: Sequence[tuple[str, int]], carriers: Sequence[tuple[float, str, int]], quiet: float
    ) -> tuple[Latch, ...]:
        """Latch the named streams and all that are functions of their fields, one latch a detector."""
        fields = {f for d, j in named for f in self._members[d].streams[j].fields}
        if any(f not in self._outputs and not f.startswith(NO_COLUMN) for f in fields):
            fields |= self._outputs
        strongest: dict[str, int] = {}
        for _, detector, j in carriers:
            if not fields.isdisjoint(self._members[detector].streams[j].fields):
                strongest.setdefault(detector, j)
        made = []
        for detector, member in self._members.items():
            touched = [
                j
                for j, s in enumerate(member.streams)
                if (not member.latched[j] or member.opening[j])
                and ((detector, j) in named or not fields.isdisjoint(s.fields))
            ]
            if not touched:
                continue
            member.latched[touched] = True
            member.opening[touched] = False
            latch = Latch(f"{self.alarms}:{detector}", detector, tuple(touched), strongest.get(detector, touched[0]))
            self._held.append(_Held(latch, self.alarms, detector == named[0][0], quiet=quiet))
            made.append(latch)
        return tuple(made)

    def _split(self, member: _Member) -> None:
        """What each bet gets of an injection. The part of latched streams is not given to others."""
        share = member.share / sum(m.share for m in self._members.values())
        member.inject = np.where(member.latched[member.bets.stream], 0.0, share * member.bets.weight)
        member.idle_inject = np.bincount(member.leak_of, member.inject, len(member.leaks)).tolist()
        member.weight = float(member.inject.sum())

    # --- recoveries ------------------------------------------------------------------------------------------------

    def _recover(self, evidence: Evidence) -> Verdict:
        mine = {h.latch.leading: h for h in self._held if h.latch.detector == evidence.detector}
        self._touched.add(evidence.detector)
        for i in range(len(evidence.elapsed)):
            opened: list[Latch] = []
            for leading, gain in zip(evidence.leading, evidence.log_e[i].tolist(), strict=True):
                held = mine.get(leading)
                if held is None or not held.primary:
                    continue
                if self._is_back(held, gain):
                    opened += self._open(held.alarm, evidence.detector)
            if opened:
                return Verdict(evidence.detector, i + 1, recovered=tuple(opened))
        return Verdict(evidence.detector, len(evidence.elapsed))

    def _is_back(self, held: _Held, gain: float) -> bool:
        """Whether a latch opens by this gain: at 20 : 1 and two nats, for as long as it has to be quiet."""
        held.gain = max(0.0, held.gain + gain)
        if held.gain < RECOVERED:
            held.since = -1.0
            return False
        if held.quiet:
            held.gain = min(held.gain, 2 * RECOVERED)  # or a long quiet would hide the next return
            held.since = self.clock if held.since < 0 else held.since
            return self.clock - held.since >= held.quiet
        return True

    def _open(self, alarm: int, detector: str | None = None) -> tuple[Latch, ...]:
        """Open the latches of an alarm; those of others than `detector`, where one is given, wait."""
        opened = tuple(h.latch for h in self._held if h.alarm == alarm)
        self._held = [h for h in self._held if h.alarm != alarm]
        for latch in opened:
            member = self._members[latch.detector]
            if detector in (None, latch.detector):
                member.latched[list(latch.streams)] = False
                self._split(member)
            else:
                member.opening[list(latch.streams)] = True
            self._touched.add(latch.detector)
        return opened


def _grow(member: _Member, e: F64, earned: float) -> None:
    """One block: inject, multiply by the leaking e-value `e`, cap."""
    capital = member.capital
    capital += member.inject * earned
    capital *= e
    member.total = float(np.add.reduce(capital))
    if member.total > MAX_CAPITAL:
        np.minimum(capital, MAX_CAPITAL, out=capital)
        member.total = float(np.add.reduce(capital))
    paid = zip(member.idle, member.idle_inject, member.leaks, strict=True)
    member.idle = [(idle + inject * earned) * leak for idle, inject, leak in paid]


def _strongest_bet(member: _Member, stream: int) -> int:
    own = np.flatnonzero(member.bets.stream == stream)
    return int(own[np.argmax(member.capital[own])])


def _check_bets(detector: str, streams: int, bets: Bets) -> None:
    if not len(bets.stream) == len(bets.weight) == len(bets.leak):
        raise ValueError(f"bets of {detector}: stream, weight and leak differ in length")
    if len(bets.stream) and not (int(bets.stream.min()) >= 0 and int(bets.stream.max()) < streams):
        raise ValueError(f"bets of {detector} name streams that it does not have ({streams})")
    if (bets.weight < 0).any() or abs(float(bets.weight.sum()) - 1) > 1e-6:
        raise ValueError(f"weights of {detector} must be at least 0 and sum to 1, not {float(bets.weight.sum())}")
    if (bets.leak < 0).any() or (bets.leak > 1).any():
        raise ValueError(f"leaks of {detector} must lie between 0 and 1")


def _held_from(page: Page, members: Mapping[str, _Member]) -> list[_Held]:
    held: list[dict[str, Any]] = json.loads(page["latches"].tobytes())
    for h in held:
        member = members.get(h["latch"]["detector"])
        if member is None or max(h["latch"]["streams"], default=0) >= len(member.streams):
            raise StateError(f"stored latch {h['latch']['key']} names streams that do not run")
        h["latch"] = Latch(**{**h["latch"], "streams": tuple(h["latch"]["streams"])})
    return [_Held(**h) for h in held]
