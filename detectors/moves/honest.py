"""What honest queries of one model look like to the second stage: measured once, when its calibration ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.base import F64, I32, I64, Page, StateError
from detectors.moves.asked import Asked
from detectors.moves.joint import PARTS, surprise
from detectors.moves.relations import Query, copied_gain
from detectors.moves.scale import Scale
from detectors.moves.steps import DEFAULT_RATES, FLIP, LINE, MIRROR, PROBE, TWIN, rates
from detectors.moves.window import Window
from detectors.queries.calibration import PER_CLIENT
from detectors.views.projection import F32

CLASS_LEAST: Final = 200
"""Honest queries of a class from which on it has p-values of its own."""
SAMPLE: Final = 1_000
SIZES: Final = (8, 16, 32, 48, 64, 96, 128)
"""Numbers of queries at which a client's mix is compared with an honest one."""
_DRAWS: Final = 200
_FEWER: Final = 64
_ODD: Final = 1.9
"""Standard deviations by which a mix may be off: three honest mixes in a hundred are."""
_SURELY: Final = 4.0
"""Standard errors by which a mean must be off."""
_BET: Final = 0.3
_SMALL = (False, True)
"""Whether small values are unusual, of the columns of `Asked.value`."""


@dataclass(frozen=True, slots=True)
class _Mix:
    """Honest mixes of some number of queries, each number mapped by its ranks: the dependence that 99 of 100 exceed,
    mean and standard deviation of dependence and of distance to the reference, how far off both together may be, and
    the mean grain."""

    least: float
    dependence: float
    spread: float
    distance: float
    reach: float
    most: float
    grain: float


class Honest:
    """Frozen figures of the clean stretch. Before `measure` it holds defaults, and excuses nobody."""

    def __init__(self, columns: int) -> None:
        self.rates = DEFAULT_RATES
        self.low_margin = 0.0
        """A tenth of the honest margins is below."""
        self.sample: F32 = np.zeros((0, columns), np.float32)
        """(n, columns) cells of honest queries, at most 30 of a client."""
        self._off_grid: F64 = np.zeros(0)
        self._label: I32 = np.zeros(0, np.int32)
        self._value: F32 = np.zeros((0, 2), np.float32)
        self._margin: F32 = np.zeros(0, np.float32)
        self._kept: dict[int, _Mix] = {}
        self._middle: tuple[float, float] | None = None
        self._compile()

    def measure(self, asked: Asked, scale: Scale) -> None:
        """Learn from the honest queries, in the order they were asked."""
        order = np.argsort(asked.owner, kind="stable")
        rank = np.arange(len(order)) - np.searchsorted(asked.owner[order], asked.owner[order])
        balanced = np.sort(order[rank < PER_CLIENT])
        some = asked.rows(balanced)
        take = np.unique(np.linspace(0, len(balanced) - 1, min(len(balanced), SAMPLE)).astype(np.int64))
        self.sample = some.cells[take]
        self._off_grid = np.sort(1.0 - scale.frequency(some.cells)[1].mean(axis=1))
        self._label, self._value, self._margin = some.label, some.value, some.margin
        margin = some.margin[np.isfinite(some.margin)]
        self.low_margin = float(np.quantile(margin, 0.1)) if len(margin) else 0.0
        self.rates = _measured(asked, order, scale)
        self._compile()

    def log_e(self, asked: Asked, off_grid: F64) -> F64:
        """(n, 6) evidence of each query: that of the first stage, no more than within its class allowed, how many of
        its values are off the data's own grid, and how unusual it is in several ways at once. Nothing speaks against
        an honest query."""
        out = np.zeros((len(asked), 6))
        out[:, :4] = asked.log_e
        for k, column in ((0, 0), (3, 1)):
            out[:, k] = np.minimum(out[:, k], self._in_class(asked, column))
        out[:, 4] = _bet(_p(self._off_grid, off_grid - 1e-6, small=False)) if len(self._off_grid) else 0.0
        if len(self._together):
            told = np.minimum(surprise(out[:, PARTS], _BET), self._surprise(asked)).sum(axis=1)
            out[:, 5] = _bet(_p(self._together, told - 1e-9, small=False))
        out[asked.honest] = 0.0
        return out

    def rescaled(self, heads: F32, margins: F64, scale: Scale) -> bool:
        """Whether the queries are the population's on another scale: under an increasing map of each number their
        fields belong together and lie as near the data as honest ones do, their values are no finer, and few margins
        are small."""
        n = max((k for k in SIZES if k <= len(heads)), default=0)
        if not n or len(self.sample) < SIZES[0]:
            return False
        heads, margins = heads[-n:], margins[-n:]
        usual = self._usual(n, scale)
        dependence, distance = (float(found[0]) for found in scale.rescaled(heads[None]))
        apart = (usual.dependence - dependence) / usual.spread + (distance - usual.distance) / usual.reach
        if (
            dependence < usual.least
            or apart > usual.most
            or float(scale.grain(heads[None])[0]) > 1.5 * usual.grain + 0.05
        ):
            return False
        return float((margins < self.low_margin).mean()) < 0.5

    def contracted(self, heads: F32, scale: Scale) -> bool:
        """Whether the queries lie nearer to the middle of the data than honest ones do: mixtures of real rows do."""
        n = max((k for k in SIZES[2:] if k <= len(heads)), default=0)
        if not n or len(self.sample) < SIZES[0]:
            return False
        if self._middle is None:
            usual = scale.spread(self.sample)
            self._middle = float(usual.mean()), float(usual.std())
        mean, sd = self._middle
        return bool(scale.spread(heads[-n:]).mean() < mean - _SURELY * sd / np.sqrt(n))

    def _usual(self, n: int, scale: Scale) -> _Mix:
        """What honest mixes of n queries look like; made when first asked."""
        if n not in self._kept:
            rng = np.random.default_rng(n)
            draws = self.sample[rng.choice(len(self.sample), (_DRAWS, n))]
            kept, far = scale.rescaled(draws, _FEWER)
            spread, reach = float(kept.std()) + 1e-9, float(far.std()) + 1e-9
            dependence, distance = float(kept.mean()), float(far.mean())
            apart = (dependence - kept[:_FEWER]) / spread + (far - distance) / reach
            self._kept[n] = _Mix(
                float(np.quantile(kept, 0.01)), dependence, spread, distance, reach,
                _ODD * float(apart.std()), float(scale.grain(draws).mean()),
            )  # fmt: skip
        return self._kept[n]

    def _in_class(self, asked: Asked, column: int, own: int = 0) -> F64:
        out = np.full(len(asked), np.inf)
        for label, tables in self._classes.items():
            rows = np.flatnonzero(asked.label == label)
            if len(rows):
                out[rows] = _bet(_p(tables[column], asked.value[rows, column].astype(np.float64), _SMALL[column], own))
        return out

    def _surprise(self, asked: Asked, own: int = 0) -> F64:
        """(n, 3) −log p of outlier, margin and dependence against the honest queries held, in the class if that is
        less; 0 where there is no value. `own` is 1 for queries that are among those held."""
        out = np.zeros((len(asked), 3))
        for k, values, table, small in (
            (0, asked.value[:, 0], self._tables[0], False),
            (1, asked.margin, self._tables[1], True),
            (2, asked.value[:, 1], self._tables[2], True),
        ):
            known = np.flatnonzero(np.isfinite(values))
            if len(table):
                out[known, k] = -np.log(_p(table, values[known].astype(np.float64), small, own))
        for k, column in ((0, 0), (2, 1)):
            out[:, k] = np.minimum(out[:, k], surprise(self._in_class(asked, column, own), _BET))
        return out

    def _compile(self) -> None:
        self._kept.clear()
        self._middle = None
        labels, count = np.unique(self._label, return_counts=True)
        self._classes = {
            int(label): [np.sort(self._value[self._label == label, k].astype(np.float64)) for k in range(2)]
            for label in labels[(count >= CLASS_LEAST) & (labels >= 0)]
        }
        parts = (self._value[:, 0], self._margin, self._value[:, 1])
        self._tables = [np.sort(part[np.isfinite(part)].astype(np.float64)) for part in parts]
        held = Asked.zeros(len(self._label), 0)
        held.value[:], held.margin[:], held.label[:] = self._value, self._margin, self._label
        self._together = np.sort(self._surprise(held, own=1).sum(axis=1))

    def page(self) -> Page:
        """Everything, as arrays."""
        return {
            "rates": self.rates.copy(),
            "low_margin": np.array([self.low_margin]),
            "sample": self.sample.copy(),
            "off_grid": self._off_grid.copy(),
            "label": self._label.copy(),
            "value": self._value.copy(),
            "margin": self._margin.copy(),
        }

    def restore(self, page: Page) -> None:
        """Take what `page` gave. StateError when it is of other columns."""
        if page["rates"].shape != (5, 2) or page["sample"].shape[1:] != self.sample.shape[1:]:
            raise StateError(f"stored honest queries have {page['sample'].shape[1:]} columns")
        self.rates, self.low_margin = page["rates"].astype(np.float64), float(page["low_margin"][0])
        self.sample, self._off_grid = page["sample"].astype(np.float32), page["off_grid"].astype(np.float64)
        self._label, self._value = page["label"].astype(np.int32), page["value"].astype(np.float32)
        self._margin = page["margin"].astype(np.float32)
        self._compile()


def queries_of(asked: Asked, scale: Scale, honest: Honest | None = None) -> list[Query]:
    """Each query with what is known of it by itself."""
    share, grid = scale.frequency(asked.cells)
    points, scaled = scale.points(asked.cells), scale.scaled(asked.cells)
    off_grid, copied = 1.0 - grid.mean(axis=1), copied_gain(share)
    log_e = np.zeros((len(asked), 6)) if honest is None else honest.log_e(asked, off_grid)
    return [
        Query(
            asked.cells[i], points[i], scaled[i], share[i], copied[i], float(off_grid[i]), int(asked.label[i]),
            float(asked.margin[i]), log_e[i],
        )
        for i in range(len(asked))
    ]  # fmt: skip


def _measured(asked: Asked, order: I64, scale: Scale) -> F64:
    """How often honest clients move like attackers: of the first 30 queries of each."""
    hits, seen = np.zeros(5), np.zeros(5)
    queries = queries_of(asked, scale)
    for rows in np.split(order, np.flatnonzero(np.diff(asked.owner[order])) + 1):
        if len(rows) == 1:
            continue
        window = Window(asked.cells.shape[1], scale.projection.dimensions, scale.numbers)
        for relation in window.relate([queries[row] for row in rows[:PER_CLIENT].tolist()], scale):
            if relation is None:
                continue
            seen[[LINE, MIRROR, PROBE, TWIN]] += 1
            hits[LINE] += relation.line
            hits[MIRROR] += relation.mirror
            hits[PROBE] += relation.probe
            hits[TWIN] += relation.twin
            if relation.distance < scale.near:
                seen[FLIP] += 1
                hits[FLIP] += relation.flip
    return rates(hits, seen)


def _bet(p: F64) -> F64:
    bet: F64 = np.log(_BET) + (_BET - 1) * np.log(p)
    return bet


def _p(honest: F64, values: F64, small: bool, own: int = 0) -> F64:
    if small:
        count = np.searchsorted(honest, values, side="right")
    else:
        count = len(honest) - np.searchsorted(honest, values, side="left")
    p: F64 = (count + 1 - own) / (len(honest) + 1)
    return p
