"""What the metrics say of each model: counts, clients, the state of its budget, its labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from monitor.label_metrics import LabelMetrics
from monitor.metrics import Metrics
from monitor.watch import Watch


class ModelMetrics:
    """Brings the metrics of models up to date; models beyond `limits.series` have none."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._labels = LabelMetrics(metrics)
        self._shown: dict[str, tuple[int, int, int]] = {}
        """Predictions, labels and predictions not judged, shown so far, by subject."""

    def begin(self, watch: Watch) -> None:
        """Counters start at zero with the process: what was counted before is not shown again."""
        self._shown[watch.subject] = (watch.predictions, watch.labels, watch.sampling.unjudged)
        self._labels.begin(watch)

    def show(self, watches: Mapping[str, Watch]) -> None:
        """Show the present state of all models."""
        metrics = self._metrics
        states = dict.fromkeys(("calibrating", "watching", "held", "off"), 0)
        for subject, watch in watches.items():
            row = watch.row()
            states[row.state] += 1
            if not metrics.admits("model", subject):
                continue
            label = subject.removeprefix("model:").removeprefix("/")
            predictions, labels, unjudged = self._shown.get(subject, (0, 0, 0))
            metrics.predictions.labels(label).inc(row.predictions - predictions)
            metrics.labels_seen.labels(label).inc(row.labels - labels)
            metrics.sample_rate.labels(label).set(row.sample_rate)
            metrics.unjudged.labels(label).inc(row.unjudged - unjudged)
            self._shown[subject] = (row.predictions, row.labels, row.unjudged)
            metrics.clients.labels(label).set(row.clients)
            self._labels.show(label, watch)
            if watch.panel is not None:
                metrics.smallest_shift.labels(label).set(watch.sensing.smallest)
                metrics.independent_shift.labels(label).set(watch.sensing.independent)
                metrics.design_effect.labels(label).set(watch.sensing.design_effect)
                metrics.sensitivity_reduced.labels(label).set(bool(watch.sensing.note))
            if watch.panel is not None:
                metrics.capital.labels(label, "drift").set(watch.panel.account.capital)
                metrics.alarms.labels(label, "drift").set(watch.panel.account.alarms)
        for state, number in states.items():
            metrics.watched.labels(state).set(number)

    def show_clients(self, held: Sequence[int], limit: int, watches: Iterable[str]) -> None:
        """Show the memory of clients: bytes that each model holds, of all models, in their order."""
        self._metrics.client_bytes_limit.set(limit)
        for subject, size in zip(watches, held, strict=True):
            if self._metrics.admits("model", subject):
                label = subject.removeprefix("model:").removeprefix("/")
                self._metrics.client_bytes.labels(label).set(size)
