"""The detectors of one watched model with their account: batches in, findings out, state in pages.

The account turns evidence into verdicts, the detector that gave the evidence hears each verdict before it goes on,
and alarms become findings. A detector that raises is stopped and reported; the others go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from alerts.incidents import Incident
from detectors.account import SumAccount
from detectors.base import (
    Batch,
    ClientEvidence,
    Context,
    Detector,
    Evidence,
    Finding,
    Page,
    StateError,
    Verdict,
    Views,
    registry,
)
from detectors.findings import AlarmContext, alarm_finding
from detectors.reference import Reference
from monitor.state.codec import array_text, text_array
from monitor.state.unit import StatePage

Report = Callable[[Finding, Batch], Incident | None]
"""Takes a finding and the batch it came from; answers the incident it opened, fed or closed."""
ACCOUNT, LATCHES = "account.drift", "account.latches"
_PAGE_VERSION = 1


@dataclass(frozen=True, slots=True)
class PanelSettings:
    """What the configuration says of a model's detectors. `per` is in seconds."""

    drift_budget: float = 1.0
    per: float = 30 * 86_400.0
    detectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ParamsError(ValueError):
    """The configuration gives a detector parameters it does not have. The text names both."""


@dataclass(slots=True)
class _Runner:
    detector: Detector
    params_hash: str
    failure: str | None = None


class Panel:
    """All detectors that can run on a model with this reference; `off` says why the others cannot."""

    def __init__(self, subject: str, model: str, reference: Reference, settings: PanelSettings) -> None:
        self.subject = subject
        self.model = model
        self.context = Context(subject, reference, _events_per_day(reference))
        self.off: dict[str, str] = {}
        self.failures: list[tuple[str, str]] = []
        """(detector, error) of detectors that stopped since the caller last looked; the caller empties it."""
        self._runners = [*self._make(settings.detectors)]
        self.account = SumAccount(settings.drift_budget, settings.per)
        for runner in self._runners:
            bets = runner.detector.bets()
            if bets is not None and runner.detector.account == "drift":
                detector = runner.detector
                self.account.register(detector.name, detector.streams(), bets, detector.share, reference.outputs)
        self._hash = _hash([r.params_hash for r in self._runners])
        self._latches: dict[str, str] = {}
        """Latch key → id of the incident that its alarm opened or joined."""
        self._latches_changed = False

    def detect(self, batch: Batch, report: Report) -> None:
        """Run every detector over one batch."""
        views = Views(batch, self.context)
        for runner in self._runners:
            self._guarded(runner, lambda d: d.update(batch, views), batch, report)

    def advance(self, watermark: float, batch: Batch, report: Report) -> None:
        """Tell every detector the time. `batch` is an empty one: findings of time have no row."""
        for runner in self._runners:
            self._guarded(runner, lambda d: d.advance(watermark), batch, report)

    def dirty(self) -> list[StatePage]:
        """Pages changed since the last call, of detectors, account and latches."""
        pages = []
        for runner in self._runners:
            d = runner.detector
            if runner.failure is None:
                pages += [self._page(d.name, runner.params_hash, k, d.state_version, p) for k, p in d.dirty().items()]
        pages += [self._page(ACCOUNT, self._hash, k, _PAGE_VERSION, p) for k, p in self.account.dirty().items()]
        if self._latches_changed:
            self._latches_changed = False
            page = {"keys": text_array(list(self._latches)), "incidents": text_array(list(self._latches.values()))}
            pages.append(self._page(LATCHES, self._hash, "all", _PAGE_VERSION, page))
        return pages

    def restore(self, stored: Iterable[StatePage]) -> list[str]:
        """Take stored pages. Returns a sentence for each detector that had state and starts anew."""
        kept: dict[tuple[str, str], dict[str, StatePage]] = {}
        for page in stored:
            kept.setdefault((page.detector, page.params_hash), {})[page.page] = page
        names = {name for name, _ in kept}
        anew = []
        for runner in self._runners:
            pages = kept.get((runner.detector.name, runner.params_hash))
            if pages is None:
                if runner.detector.name in names:
                    anew.append(
                        f"{runner.detector.name} of {self.subject} starts anew: its parameters or reference changed"
                    )
                continue
            try:
                _restore(runner.detector, pages)
            except StateError as error:
                anew.append(f"{runner.detector.name} of {self.subject} starts anew: {error}")
        try:
            self._restore_account(kept)
        except StateError as error:
            anew.append(f"the account of {self.subject} starts anew: {error}")
        return anew

    def _restore_account(self, kept: Mapping[tuple[str, str], Mapping[str, StatePage]]) -> None:
        account = kept.get((ACCOUNT, self._hash))
        if account:
            self.account.restore({name: p.arrays for name, p in account.items()})
        latches = kept.get((LATCHES, self._hash))
        if latches:
            arrays = latches["all"].arrays
            self._latches = dict(zip(array_text(arrays["keys"]), array_text(arrays["incidents"]), strict=True))

    def _make(self, configured: Mapping[str, Mapping[str, Any]]) -> Iterator[_Runner]:
        reference = self.context.reference
        available = {"features", "reference", "client"} | ({"outputs"} if reference.outputs else set())
        for name, cls in registry().items():
            given = dict(configured.get(name, {}))
            if not given.pop("enabled", True):
                self.off[name] = "switched off in the configuration"
                continue
            missing = cls.inputs - available
            if missing:
                self.off[name] = f"{', '.join(sorted(missing))} not available"
                continue
            params = make_params(cls, given)
            yield _Runner(cls(self.context, params), _hash([name, asdict(params), reference.version]))

    def _guarded(self, runner: _Runner, run: Callable[[Detector], Iterator[Any]], batch: Batch, report: Report) -> None:
        if runner.failure is not None:
            return
        try:
            for item in run(runner.detector):
                if isinstance(item, Evidence):
                    self._settle(runner.detector, item, batch, report)
                elif isinstance(item, Finding):
                    report(item, batch)
                elif isinstance(item, ClientEvidence):
                    raise TypeError(
                        f"{runner.detector.name} yields evidence on clients, and no client account is set up"
                    )
        except Exception as error:
            runner.failure = f"{type(error).__name__}: {error}"
            self.failures.append((runner.detector.name, runner.failure))

    def _settle(self, detector: Detector, evidence: Evidence, batch: Batch, report: Report) -> None:
        verdict = self.account.judge(evidence)
        detector.react(verdict)
        if verdict.alarm is not None or verdict.recovered:
            # latches cross detectors: all of them must know
            for other in self._runners:
                if other.detector is not detector and other.failure is None:
                    other.detector.react(verdict)
        if verdict.alarm is not None:
            self._alarmed(verdict, batch, report)
        if verdict.recovered:
            self._recovered(verdict, evidence, batch, report)

    def _alarmed(self, verdict: Verdict, batch: Batch, report: Report) -> None:
        alarm = verdict.alarm
        assert alarm is not None
        source = next(r.detector for r in self._runners if r.detector.name == alarm.detector)
        explanation = source.explain(alarm.streams, alarm.block)
        inputs = frozenset(self.context.reference.fields)
        around = AlarmContext("drift", source.streams(), inputs, self.model)
        incident = report(alarm_finding(alarm, explanation, batch, around), batch)
        if incident is not None:
            self._latches.update({latch.key: incident.id for latch in verdict.latched})
            self._latches_changed = True

    def _recovered(self, verdict: Verdict, evidence: Evidence, batch: Batch, report: Report) -> None:
        """An incident closes when the last latch that belongs to it has opened."""
        row = int(evidence.row[max(verdict.consumed - 1, 0)])
        for latch in verdict.recovered:
            incident = self._latches.pop(latch.key, None)
            self._latches_changed = True
            if incident is None or incident in self._latches.values():
                continue
            now = float(batch.time[row])
            recovery = Finding(
                detector=verdict.detector,
                kind="feature_drift",
                account="drift",
                severity="info",
                time=now,
                row=row,
                position=batch.start + row,
                subjects=(),
                onset=now,
                measures=(),
                cause=incident,
                action="recover",
            )
            report(recovery, batch)

    def _page(self, detector: str, params_hash: str, name: str, version: int, arrays: Page) -> StatePage:
        return StatePage(self.subject, detector, params_hash, name, version, arrays)


def make_params(cls: type[Detector], given: Mapping[str, Any]) -> Any:
    """The parameters of a detector. ParamsError names a parameter that it does not have."""
    try:
        return cls.Params(**given)
    except TypeError as error:
        known = ", ".join(cls.Params.__dataclass_fields__)
        raise ParamsError(f"detectors.{cls.name}: {error}; known parameters: enabled, {known}") from error


def _restore(detector: Detector, pages: Mapping[str, StatePage]) -> None:
    wrong = [p.version for p in pages.values() if p.version != detector.state_version]
    if wrong:
        raise StateError(f"stored state has version {wrong[0]}, this build reads version {detector.state_version}")
    detector.restore({name: page.arrays for name, page in pages.items()})


def _events_per_day(reference: Reference) -> float:
    """Daily volume as the times of the reference show it; a round figure where they do not."""
    times = reference.rows.time
    span = float(np.ptp(times)) if len(times) > 1 else 0.0
    return len(times) / span * 86_400 if span > 0 else 100_000.0


def _hash(parts: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=repr).encode(), digest_size=8).hexdigest()
