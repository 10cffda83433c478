"""One client under watch: threads between its queries, moves inside them, and what they amount to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import F64, I64, Page
from detectors.moves.honest import SIZES, Honest
from detectors.moves.relations import WINDOW, Query, Relation
from detectors.moves.scale import Scale
from detectors.moves.stars import Recent
from detectors.moves.steps import FLIP, LINE, MIRROR, PROBE, TWIN, Steps
from detectors.moves.threads import Thread, Threads
from detectors.moves.window import MASK_OFF_GRID, Link, Window, link
from detectors.views.projection import F32

ACROSS: Final = ("outlier", "margin", "near", "dependence", "grid", "joint")
INSIDE: Final = ("flip", "line", "mirror", "probe", "twin", "follow")
LINKS: Final = ("near", "edit", "mask", "path", "free")
_GRID, _JOINT = 4, 5
HEADS: Final = 128
SWEEP: Final = 60
"""Edits of one record that are a sweep; of wide records as many as they have fields, so that asking once without each
field, as explainers do, is none. Edits made one upon the other count from here on whatever the width."""
SWEEP_SHARE: Final = 0.5
_DOUBTFUL: Final = math.log(1e4)
_EARLY: Final = 8
_AGAIN: Final = 64
_SMOOTH: Final = 6
"""Steps in a row, neither near nor beyond the radius of a path, that make a smooth motion."""
_SMOOTH_REACH: Final = 1.5


@dataclass(frozen=True, slots=True)
class Named:
    """Why a client is an attacker: the evidence, its log, and of `n` queries how many were `hits`."""

    evidence: str
    log_e: float
    hits: int
    n: int
    usual: float
    """Share of hits among an honest client's queries, as far as that is known."""


class Trail:
    """The state of one client."""

    def __init__(self, scale: Scale, honest: Honest) -> None:
        self._scale, self._honest = scale, honest
        columns = scale.cells.columns
        self._window = Window(columns, scale.projection.dimensions, scale.numbers)
        self._threads = Threads(len(ACROSS))
        self._recent = Recent(columns)
        self._steps = Steps()
        self._heads: F32 = np.zeros((0, columns), np.float32)
        self._head_margins: F64 = np.zeros(0)
        self._made_of: Link = "free"
        self.links: I64 = np.zeros(len(LINKS), np.int64)
        """Queries by what they were made from, in the order of `LINKS`."""
        self.heads = 0
        """Queries that were made from no other."""
        self.asked = 0
        self.judged = 0
        """Queries asked after the calibration."""
        self._excuse_at = -1
        self.rescaled = False
        """The client's data is the population's on another scale, as last judged."""
        self.contracted = False
        """Its queries lie nearer to the middle of the data than honest ones do, as last judged."""
        self._sweep = 0
        self._last_steps: tuple[float, ...] = ()

    def take(self, queries: Sequence[Query], honest: Sequence[bool]) -> Iterator[bool]:
        """Take more queries in the order they were asked; `honest`: asked while the model calibrated. Yields that of
        each query when it has been taken; those not asked for are not taken."""
        for begin in range(0, len(queries), WINDOW):
            some = queries[begin : begin + WINDOW]
            for q, relation, calm in zip(some, self._window.relate(some, self._scale), honest[begin:], strict=False):
                self._take(q, relation, calm)
                yield calm

    def _take(self, q: Query, relation: Relation | None, honest: bool) -> None:
        made_of, thread = self._join(q, relation)
        if thread is None:
            thread = self._threads.begin(q)
            self._head(q)
        edited = made_of == "edit" or bool(relation and relation.even and made_of != "free")
        walked = made_of == "edit" and relation is not None and relation.edited == 1
        thread.take(q, made_of, edited, np.exp(q.log_e), walked)
        self._window.take(q, relation, thread.id)
        thread = self._star(q, made_of, thread)
        enough = SWEEP if thread.walk >= SWEEP else max(SWEEP, self._scale.cells.columns)
        self._sweep = thread.edit if thread.edit >= max(enough, SWEEP_SHARE * thread.n) else 0
        self.asked += 1
        last, self._made_of = self._made_of, made_of
        if honest:
            return
        self.judged += 1
        self.links[LINKS.index(made_of)] += 1
        if relation is not None:
            self._move(relation, made_of, last)

    def named(self, least: float) -> Named | None:
        """The strongest evidence, when its log is above `least`, or None."""
        found = self._inside(least) or self._swept()
        if found is not None:
            return found
        across = self._threads.evidence()
        self._excuse(across)
        if self.rescaled or (self.heads < _EARLY and self.heads > 0.5 * self.judged):
            return None
        usable = across.copy()
        usable[_GRID] = 0.0
        # Finer numbers than the data's may be another export of it; nearer to the middle as well, they are mixtures.
        if self.contracted and self.heads > 0.5 * self.judged:
            usable[_GRID] = across[_GRID]
        # What is unusual in one way says more to who reads it.
        best = int(np.argmax(usable[:_JOINT]))
        best = best if usable[best] > least else _JOINT
        if usable[best] <= least:
            return None
        return Named(ACROSS[best], float(usable[best]), min(self.heads, self.judged), self.judged, 0.0)

    def outline(self) -> tuple[F32, F32, bool]:
        """Points of its last queries, cells of those made from no other, and whether these tell how it deviates."""
        free = self.heads > 0.5 * self.judged and not self.rescaled
        return self._window.points(), self._heads, free

    def _join(self, q: Query, relation: Relation | None) -> tuple[Link, Thread | None]:
        """What the query was made from, and the open thread it joins."""
        if relation is None:
            return "free", None
        self._last_steps = (*self._last_steps, relation.step)[-_SMOOTH:]
        made_of, back = link(q, relation, self._scale)
        if back:
            return made_of, self._threads.get(self._window.thread(back))
        varied = self._threads.varied(q)
        if varied is not None:
            return "mask", varied
        radius = self._scale.radius
        last = self._last_steps
        smooth = len(last) == _SMOOTH and max(last) < radius and min(last) > self._scale.near
        if smooth or relation.step < self._scale.step:
            reach = _SMOOTH_REACH * radius if smooth else radius
            return "path", self._threads.on_path(q, self._window.thread(1), reach)
        return "free", None

    def _head(self, q: Query) -> None:
        self.heads += 1
        keep = slice(max(0, len(self._heads) - HEADS + 1), None)
        self._heads = np.concatenate([self._heads[keep], q.cells[None]])
        self._head_margins = np.append(self._head_margins[keep], q.margin)

    def _star(self, q: Query, made_of: Link, thread: Thread) -> Thread:
        """Look for one hidden row behind the last queries; the thread this one is in then."""
        if made_of not in ("free", "mask") or q.off_grid > MASK_OFF_GRID or len(q.cells) <= 4:
            return thread
        self._recent.take(q.cells, q.share, thread.id)
        if not self._recent.due(self.asked):
            return thread
        ids = self._recent.star()
        kept = self._threads.merge(sorted(ids)) if ids else None
        if kept is None:
            return thread
        self._window.rename(ids, kept)
        self._recent.rename(ids, kept)
        return self._threads.get(thread.id) or self._threads.get(kept) or thread

    def _move(self, relation: Relation, made_of: Link, last: Link) -> None:
        rates = self._honest.rates
        if made_of == "near":
            self._steps.move(FLIP, relation.flip, rates[FLIP])
        if self.asked >= 3:
            self._steps.move(LINE, relation.line, rates[LINE])
            self._steps.move(MIRROR, relation.mirror, rates[MIRROR])
            self._steps.move(PROBE, relation.probe, rates[PROBE])
            self._steps.move(TWIN, relation.twin, rates[TWIN])
        if relation.follows is not None and made_of != "free" and last != "free":
            self._steps.follow(relation.improved, relation.follows)

    def _inside(self, least: float) -> Named | None:
        steps = self._steps
        best = int(np.argmax(steps.sums))
        if steps.sums[best] > least:
            return Named(
                INSIDE[best],
                float(steps.sums[best]),
                int(steps.hits[best]),
                int(steps.seen[best]),
                float(self._honest.rates[best, 0]),
            )
        following = steps.following()
        if following > least:
            otherwise = float(steps.followed[0, 1] / max(steps.followed[0].sum(), 1.0))
            return Named("follow", following, int(steps.followed[1, 1]), int(steps.followed[1].sum()), otherwise)
        return None

    def _swept(self) -> Named | None:
        if not self._sweep:
            return None
        return Named("sweep", 0.0, self._sweep, self.judged, 0.0)

    def _excuse(self, across: F64) -> None:
        """Judge at some numbers of origins, and at every 64 more: is this honest data on another scale, or mixtures of
        it? Seldom, because every time honest data may fail by chance.

        Both all the origins held and those that the strongest evidence comes from must look so.
        """
        if across.max() <= _DOUBTFUL:
            return
        size = max((n for n in SIZES if n <= self.heads), default=0)
        if self.heads > size == SIZES[-1]:
            size = self.heads // _AGAIN * _AGAIN
        if size != self._excuse_at:
            self._excuse_at = size
            bearing = max(self._threads.bearing(int(np.argmax(across))), _EARLY)
            some = slice(max(0, len(self._heads) - bearing), None)
            self.rescaled = size > 0 and all(
                self._honest.rescaled(self._heads[its], self._head_margins[its], self._scale)
                for its in (slice(None), some)
            )
            self.contracted = size > 0 and self._honest.contracted(self._heads, self._scale)

    def page(self) -> Page:
        """Everything, as arrays."""
        counts = [
            self.heads, self.asked, self.judged, self._excuse_at, self.rescaled, self.contracted, self._sweep,
            LINKS.index(self._made_of),
        ]  # fmt: skip
        return {
            **self._window.page(), **self._threads.page(), **self._recent.page(), **self._steps.page(),
            "heads": self._heads.copy(),
            "head_margins": self._head_margins.copy(),
            "links": self.links.copy(),
            "counts": np.array(counts, np.int64),
            "last_steps": np.array(self._last_steps, np.float64),
        }  # fmt: skip

    def restore(self, page: Page) -> None:
        """Take what `page` gave. StateError when it is of other columns."""
        self._window.restore(page)
        self._threads.restore(page)
        share, _ = self._scale.frequency(page["recent_cells"].astype(np.float32))
        self._recent.restore(page, share)
        self._steps.restore(page)
        self._heads, self._head_margins = page["heads"].astype(np.float32), page["head_margins"].astype(np.float64)
        self.links = page["links"].astype(np.int64)
        heads, asked, judged, excuse_at, rescaled, contracted, sweep, made_of = page["counts"].tolist()
        self._last_steps = tuple(page["last_steps"].tolist())
        self.heads, self.asked, self.judged, self._excuse_at = heads, asked, judged, excuse_at
        self.rescaled, self.contracted = bool(rescaled), bool(contracted)
        self._sweep, self._made_of = sweep, LINKS[made_of]
