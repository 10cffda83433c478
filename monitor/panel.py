"""The detectors of one watched model with their account: batches in, findings out, state in pages.

The account turns evidence into verdicts, the detector that gave the evidence hears each verdict before it goes on,
and alarms become findings. A detector that raises is stopped and reported; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from alerts.attribution import SECOND_STAGE
from alerts.incidents import Incident
from detectors.account import SumAccount
from detectors.base import (
    Alarm,
    Batch,
    Detector,
    Evidence,
    Explanation,
    Finding,
    LabelBatch,
    Page,
    Rows,
    StateError,
    Verdict,
    Views,
)
from detectors.drift.predictive import PredictiveDrift
from detectors.findings import AlarmContext, alarm_finding
from detectors.moves.second_stage import SecondStage
from detectors.queries.attackers import ATTACKERS
from detectors.queries.query_log import QueryLog
from detectors.reference import Reference
from monitor.latches import Found, Latches, recoveries
from monitor.lineup import PanelSettings, Runner, context_of, fingerprint, line_up
from monitor.printable import whereabouts
from monitor.sampling import Sample, in_whole
from monitor.state.unit import StatePage
from monitor.suspicion import Suspicion

Report = Callable[[Finding, Rows], Incident | None]
"""Takes a finding and the batch it came from; answers the incident it opened, fed or closed."""
ACCOUNT, LATCHES, ATTACK = "account.drift", "account.latches", "account.attack"
_MONTH = 30 * 86_400.0
_HEALTH = "health"
"""Page of the account that says whether a detector that bets with it was stopped by an error."""
_PAGE_VERSION = 1
_LABELS_AT_ONCE = 64


class Restored(NamedTuple):
    """What came of restoring: detectors that start anew and why, and stored (detector, params_hash) nobody reads."""

    anew: dict[str, str]
    obsolete: tuple[tuple[str, str], ...]


class Panel:
    """All detectors that can run on a model with this reference; `off` says why the others cannot."""

    def __init__(self, subject: str, model: str, reference: Reference, settings: PanelSettings) -> None:
        self.subject = subject
        self.model = model
        self.context = context_of(subject, reference, settings)
        self.failures: list[tuple[str, str]] = []
        """(detector, error) of detectors that stopped since the caller last looked; the caller empties it."""
        self._settings = settings
        self._found: list[Found] = []
        self._begin()

    def _begin(self) -> None:
        """Detectors and an account that have seen nothing."""
        self._runners, self.off = line_up(self.context, self._settings.detectors)
        self.account = SumAccount(self._settings.drift_budget, self._settings.per)
        outputs = self.context.reference.outputs
        shared = []
        for runner in self._runners:
            detector, bets = runner.detector, runner.detector.bets()
            if bets is not None and detector.account == "drift":
                self.account.register(detector.name, detector.streams(), bets, detector.share, outputs)
                shared.append(runner)
        self._shared = frozenset(r.detector.name for r in shared)
        """Detectors that bet with the account: latches and capital tie their states together."""
        self._hash = fingerprint([r.params_hash for r in shared])
        per_client = [r for r in self._runners if r.detector.account == "attack"]
        budget = self._settings.attack_budget * _MONTH / self._settings.per
        moves = self._settings.detectors.get(SECOND_STAGE, {}).get("enabled", True)
        second = SecondStage(self.context) if per_client and moves else None
        self.suspicion = (
            Suspicion([r.detector for r in per_client], budget, self._settings.services, second) if per_client else None
        )
        self._attack_hash = fingerprint([r.detector.name for r in per_client])
        self._opened: list[tuple[Detector, Verdict]] = []
        """Recoveries that the other detectors have not heard of yet."""
        self._latches = Latches()
        self._health_changed = False

    @property
    def attack_state(self) -> str:
        """Whether clients are judged: off, calibrating (traffic is still taken as honest) or watching."""
        running = [r.detector for r in self._runners if r.failure is None]
        log = next((d for d in running if isinstance(d, QueryLog)), None)
        if self.suspicion is None or log is None:
            return "off"
        return "calibrating" if log.calibrating else "watching"

    @property
    def client_bytes(self) -> int:
        """Memory of clients and their queries, about."""
        own = sum(r.detector.bytes for r in self._runners)
        return own + (0 if self.suspicion is None else self.suspicion.bytes)

    def shrink(self, excess: int) -> int:
        """Let detectors give up memory of small clients; the bytes that were freed."""
        before = self.client_bytes
        for runner in self._runners:
            left = excess - before + self.client_bytes
            if left > 0:
                runner.detector.shrink(left)
        return before - self.client_bytes

    @property
    def running(self) -> list[str]:
        """Detectors that were made; a failed one is among them."""
        return [runner.detector.name for runner in self._runners]

    @property
    def drift(self) -> PredictiveDrift | None:
        """The detector of drift in all traffic, where it runs."""
        drift = (r.detector for r in self._runners if r.detector.name == PredictiveDrift.name and r.failure is None)
        return next((d for d in drift if isinstance(d, PredictiveDrift)), None)

    def waits_for(self, name: str) -> int:
        """Live events that the detectors called `name` must still see before they can alarm."""
        return max((r.detector.waits_for for r in self._runners if r.detector.name == name), default=0)

    @property
    def drift_alarms_a_day(self) -> float:
        """What the budget gives the detector of drift in all traffic; it must run."""
        members = self.account.members()
        share: float = members[PredictiveDrift.name][1] / sum(s for _, s in members.values())
        return self.account.rate * 86_400 * share

    def detect(self, batch: Batch, report: Report, sample: Sample | None = None) -> None:
        """Run every detector over one batch; then report what they found, in the order of the events.

        Detectors run one after the other, but an incident must not depend on who ran first, nor on the cut.
        With a `sample` exact rules see the batch, all others that sample of it.
        """
        seen = self._screened(batch)
        if sample is None:
            self._run(seen, self._runners)
        else:
            self._run(seen, [r for r in self._runners if r.detector.every_event], suspicion=False)
            known, part = len(self._found), seen.part(sample.rows, sample.one_in)
            self._run(part, [r for r in self._runners if not r.detector.every_event])
            for one in self._found[known:]:
                one.finding = in_whole(one.finding, sample.rows, batch.start)
        self._report(batch, report)

    def _run(self, seen: Batch, runners: Iterable[Runner], suspicion: bool = True) -> None:
        views, known = self._views(seen), len(self._found)
        for runner in runners:
            self._guarded(runner, lambda d: d.update(seen, views), seen)
        if suspicion:
            self._suspect(lambda suspicion: suspicion.judge(seen, views))
            self._blame(known, seen)

    def detect_labels(self, batch: LabelBatch, report: Report) -> None:
        """Run the detectors of labels over joined ones, a few at a time: what fails in a segment must not be told of
        the whole because the whole ran first."""
        for first in range(0, len(batch), _LABELS_AT_ONCE):
            part = batch.part(first, first + _LABELS_AT_ONCE)
            for runner in self._runners:
                if "labels" in runner.detector.inputs:
                    self._guarded(runner, lambda d, part=part: d.update_labels(part), part)  # type: ignore[misc]
            self._report(part, report)

    def _views(self, batch: Batch) -> Views:
        """The derived columns of a batch, each made when it is first asked for."""
        views = Views(batch, self.context)
        if self.suspicion is not None:
            views.put(ATTACKERS, self.suspicion.attackers)
        return views

    def _screened(self, batch: Batch) -> Batch:
        """The batch as detectors should see it."""
        for runner in self._runners:
            if runner.failure is None:
                try:
                    batch = runner.detector.screen(batch)
                except Exception as error:
                    self._fail(runner, error)
        return batch

    def advance(self, watermark: float, batch: Batch, report: Report) -> None:
        """Tell every detector the time. `batch` is an empty one: findings of time have no row."""
        for runner in self._runners:
            self._guarded(runner, lambda d: d.advance(watermark), batch)
        self._suspect(lambda suspicion: suspicion.advance(watermark))
        self._report(batch, report)

    def figures(self) -> dict[str, float]:
        """Numbers of all detectors for the metrics."""
        running = [r.detector for r in self._runners if r.failure is None]
        return {name: value for detector in running for name, value in detector.figures().items()}

    def _report(self, batch: Rows, report: Report) -> None:
        self._open_waiting()
        found, self._found = self._found, []
        for one in sorted(found, key=lambda f: f.finding.row):
            finding = one.finding
            if one.opened:
                ended = self._latches.release(one.opened)
                if ended is None:
                    continue
                finding = replace(finding, cause=ended)
            incident = report(finding, batch)
            if one.closed and incident is not None:
                self._latches.hold(one.closed, incident.id)

    def dirty(self) -> list[StatePage]:
        """Pages changed since the last call, of detectors, account and latches."""
        pages = []
        for runner in self._runners:
            d = runner.detector
            try:
                changed = d.dirty() if runner.failure is None else {}
            except Exception as error:  # what cannot be stored must not stop what can
                self._fail(runner, error)
                continue
            pages += [self._page(d.name, runner.params_hash, k, d.state_version, p) for k, p in changed.items()]
        pages += [self._page(ACCOUNT, self._hash, k, _PAGE_VERSION, p) for k, p in self.account.dirty().items()]
        if self._health_changed:
            self._health_changed = False
            broken = any(r.failure is not None for r in self._runners if r.detector.name in self._shared)
            pages.append(self._page(ACCOUNT, self._hash, _HEALTH, _PAGE_VERSION, {"broken": np.array([broken])}))
        if self.suspicion is not None:
            given = self.suspicion.dirty().items()
            pages += [self._page(ATTACK, self._attack_hash, k, _PAGE_VERSION, p) for k, p in given]
        if self._latches.changed:
            pages.append(self._page(LATCHES, self._hash, "all", _PAGE_VERSION, self._latches.page()))
        return pages

    def restore(self, stored: Iterable[StatePage]) -> Restored:
        """Take stored pages; what does not fit starts anew.

        Account, latches and the detectors that bet with the account are taken all or not at all: a detector that
        knew nothing of a latch would never recover it.
        """
        kept: dict[tuple[str, str], dict[str, StatePage]] = {}
        for page in stored:
            kept.setdefault((page.detector, page.params_hash), {})[page.page] = page
        anew = self._take(kept, frozenset(r.detector.name for r in self._runners))
        if anew.keys() & (self._shared | {ACCOUNT}):
            alone = frozenset(r.detector.name for r in self._runners) - self._shared - anew.keys()
            reason = "; ".join(sorted({anew[name] for name in anew.keys() & (self._shared | {ACCOUNT})}))
            self._begin()
            self._health_changed = True
            self._take(kept, alone)
            anew = {name: why for name, why in anew.items() if name not in self._shared and name != ACCOUNT}
            anew |= dict.fromkeys(self._shared, reason)
        mine = {(r.detector.name, r.params_hash) for r in self._runners} | {
            (ACCOUNT, self._hash),
            (LATCHES, self._hash),
            (ATTACK, self._attack_hash),
        }
        return Restored(anew, tuple(sorted(kept.keys() - mine)))

    def _take(self, kept: Mapping[tuple[str, str], Mapping[str, StatePage]], wanted: frozenset[str]) -> dict[str, str]:
        """Restore the detectors named, and the account if it is theirs. Name → why, of what cannot be taken."""
        stored = {name for name, _ in kept}
        anew: dict[str, str] = {}
        for runner in self._runners:
            name = runner.detector.name
            pages = kept.get((name, runner.params_hash))
            if name not in wanted or name not in stored:
                continue
            try:
                if pages is None:
                    raise StateError("its parameters or the reference changed")
                _restore(runner.detector, pages)
            except Exception as error:
                anew[name] = str(error) or type(error).__name__
        if self.suspicion is not None and ATTACK in stored:
            try:
                attack = kept.get((ATTACK, self._attack_hash))
                if attack is None:
                    raise StateError("the tests of queries changed")
                self.suspicion.restore({name: page.arrays for name, page in attack.items()})
            except Exception as error:
                anew[ATTACK] = str(error) or type(error).__name__
        if self._shared and self._shared <= wanted:
            try:
                self._take_account(kept, stored)
            except Exception as error:
                anew[ACCOUNT] = str(error) or type(error).__name__
        return anew

    def _take_account(self, kept: Mapping[tuple[str, str], Mapping[str, StatePage]], stored: set[str]) -> None:
        account = kept.get((ACCOUNT, self._hash))
        if account is None and ACCOUNT in stored:
            raise StateError("the detectors that share the account changed")
        if account is not None:
            if _HEALTH in account and account[_HEALTH].arrays["broken"].any():
                raise StateError("an error had stopped a detector while the account went on")
            self.account.restore({name: p.arrays for name, p in account.items() if name != _HEALTH})
        latches = kept.get((LATCHES, self._hash))
        if latches is not None:
            self._latches.load(latches["all"].arrays)
        if {latch.key for latch in self.account.latches} != self._latches.keys():
            raise StateError("stored latches and the incidents they belong to do not agree")

    def _guarded(self, runner: Runner, run: Callable[[Detector], Iterator[Any]], batch: Rows) -> None:
        if runner.failure is not None:
            return
        try:
            for item in run(runner.detector):
                if isinstance(item, Evidence):
                    self._settle(runner.detector, item, batch)
                elif isinstance(item, Finding):
                    self._found.append(Found(item))
                elif self.suspicion is not None:
                    self.suspicion.add(item)
                else:
                    raise TypeError(f"{runner.detector.name} gives evidence on clients, and declares another account")
        except Exception as error:
            self._fail(runner, error)

    def _suspect(self, ask: Callable[[Suspicion], Iterator[Finding]]) -> None:
        """What the account of clients finds; an error there is told, and stops nothing else."""
        if self.suspicion is None:
            return
        try:
            self._found += [Found(finding) for finding in ask(self.suspicion)]
        except Exception as error:
            self.failures.append((ATTACK, whereabouts(error)))
        self.failures += [(ATTACK, failure) for failure in self.suspicion.failures]
        self.suspicion.failures.clear()

    def _blame(self, known: int, seen: Batch) -> None:
        """Name the clients whose doing the drifts of this batch are, once everything is known of its queries."""
        for one in self._found[known:]:
            try:
                if self.suspicion is not None:
                    one.finding = self.suspicion.blamed(one.finding, seen)
            except Exception as error:
                self.failures.append((ATTACK, whereabouts(error)))

    def _settle(self, detector: Detector, evidence: Evidence, batch: Rows) -> None:
        verdict = self.account.judge(evidence)
        try:
            detector.react(verdict)
        finally:
            # The account has judged: an alarm is told whatever becomes of the detector that gave the evidence.
            if verdict.alarm is not None:
                self._tell_others(detector, verdict)  # another one may lead it, and is asked to explain it
                self._alarmed(verdict, verdict.alarm, batch)
            elif verdict.recovered:
                self._found += recoveries(verdict, evidence, batch)
                self._opened.append((detector, verdict))

    def _open_waiting(self) -> None:
        """Tell all of the recoveries of a batch, now that they are past the events before these."""
        opened, self._opened = self._opened, []
        self.account.open_waiting()
        for detector, verdict in opened:
            self._tell_others(detector, verdict)

    def _tell_others(self, source: Detector, verdict: Verdict) -> None:
        """Latches cross detectors: all of them must know of alarms and recoveries."""
        for runner in self._runners:
            if runner.detector is source or runner.failure is not None:
                continue
            try:
                runner.detector.react(verdict)
            except Exception as error:
                self._fail(runner, error)

    def _fail(self, runner: Runner, error: Exception) -> None:
        runner.failure = whereabouts(error)
        self.failures.append((runner.detector.name, runner.failure))
        self._health_changed = True

    def _alarmed(self, verdict: Verdict, alarm: Alarm, batch: Rows) -> None:
        source = next(r for r in self._runners if r.detector.name == alarm.detector)
        try:
            explanation = source.detector.explain(alarm.streams, alarm.block)
        except Exception as error:
            self._fail(source, error)
            now = float(batch.time[alarm.row])
            explanation = Explanation(now, (now, now), ())
        inputs = frozenset(self.context.reference.fields)
        around = AlarmContext("drift", source.detector.streams(), inputs, self.model, self.context.importances)
        finding = alarm_finding(alarm, explanation, batch, around)
        if finding.kind == "performance_drop" and not self._inputs_latched(inputs):
            finding = replace(finding, kind="concept_drift")
        self._found.append(Found(finding, closed=tuple(latch.key for latch in verdict.latched)))

    def _inputs_latched(self, inputs: frozenset[str]) -> bool:
        """Whether an input has alarmed and not recovered: errors are then its consequence, not a changed world."""
        streams = {name: streams for name, (streams, _) in self.account.members().items()}
        return any(
            not inputs.isdisjoint(streams[latch.detector][j].fields)
            for latch in self.account.latches
            for j in latch.streams
        )

    def _page(self, detector: str, params_hash: str, name: str, version: int, arrays: Page) -> StatePage:
        return StatePage(self.subject, detector, params_hash, name, version, arrays)


def _restore(detector: Detector, pages: Mapping[str, StatePage]) -> None:
    wrong = [p.version for p in pages.values() if p.version != detector.state_version]
    if wrong:
        raise StateError(f"stored state has version {wrong[0]}, this build reads version {detector.state_version}")
    detector.restore({name: page.arrays for name, page in pages.items()})
