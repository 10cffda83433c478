"""What the metrics say of the labels of each model."""

from __future__ import annotations

import numpy as np

from monitor.metrics import Metrics
from monitor.watch import Watch

AGES = {"1h": 3_600.0, "1d": 86_400.0, "7d": 7 * 86_400.0, "30d": 30 * 86_400.0}
QUANTILES = {"0.5": 0.5, "0.95": 0.95}


class LabelMetrics:
    """Brings the metrics of labels up to date. Models that never had a label have none."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._shown: dict[str, dict[str, int]] = {}

    def begin(self, watch: Watch) -> None:
        """Counters start at zero with the process: what was counted before is not shown again."""
        self._shown[watch.subject] = _totals(watch)

    def show(self, label: str, watch: Watch) -> None:
        """Show the state of one model under its label."""
        totals = _totals(watch)
        shown = self._shown.get(watch.subject, {})
        for name, total in totals.items():
            grown = total - shown.get(name, 0)
            if grown > 0 and name == "duplicates":
                self._metrics.predictions_duplicate.labels(label).inc(grown)
            elif grown > 0:
                self._metrics.label_counters[name].labels(label).inc(grown)
        self._shown[watch.subject] = totals
        if watch.labels:
            self._show_gauges(label, watch)

    def _show_gauges(self, label: str, watch: Watch) -> None:
        metrics, join, lags = self._metrics, watch.joined.join, watch.joined.lags
        metrics.labels_waiting.labels(label).set(len(join.early))
        metrics.predictions_pending.labels(label).set(join.pending.rows)
        metrics.label_rate.labels(label).set(2.0**-join.pending.rate)
        for name, age in AGES.items():
            kept, labelled = join.pending.coverage(watch.watermark - age)
            if kept:
                metrics.label_coverage.labels(label, name).set(labelled / kept)
        if lags:
            values = np.quantile(np.array(lags), list(QUANTILES.values())).tolist()
            for name, value in zip(QUANTILES, values, strict=True):
                metrics.label_lag.labels(label, name).set(value)
        for name, value in ({} if watch.panel is None else watch.panel.figures()).items():
            if name in metrics.figures:
                metrics.figures[name].labels(label).set(value)
        if join.counts.compared and not watch.predicts_numbers:
            metrics.label_errors.labels(label).set(join.counts.wrong / join.counts.compared)


def _totals(watch: Watch) -> dict[str, int]:
    join = watch.joined.join
    counts = join.counts
    return {
        "matched": counts.matched,
        "corrected": counts.corrected,
        "unmatched": join.unmatched,
        "unsampled": counts.unsampled,
        "duplicates": counts.duplicates,
    }
