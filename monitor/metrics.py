"""Every metric of the daemon, declared once. Client ids, incident ids and free text are never labels."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitor import __version__

LABEL_COUNTERS = {
    "matched": "Labels joined to a prediction.",
    "corrected": "Labels that replaced an earlier one of the same prediction.",
    "unmatched": "Labels given up: no prediction in time, or nothing to join.",
    "unsampled": "Labels of predictions outside the sample.",
}

FIGURES = {
    "adwin_width": "Labels that ADWIN takes to be of one error rate (detectors.error_rate.adwin).",
    "adwin_detections": "Rises of the error rate that ADWIN saw; they never page.",
}
"""Figures of detectors that are shown, by name."""


class Metrics:
    """The metrics of one daemon, in a registry of their own. Labelled children appear with their first value."""

    def __init__(self, max_series: int = 5_000) -> None:
        self.registry = CollectorRegistry()
        self.label_counters: dict[str, Counter] = {}
        self._max_series = max_series
        self._series: set[tuple[str, ...]] = set()
        r = self.registry
        self.build = Gauge("modelwarden_build_info", "Version that runs.", ["version", "python"], registry=r)
        self.build.labels(__version__, platform.python_version()).set(1)
        self.active = Gauge("modelwarden_active", "1 while this process holds the lease.", registry=r)
        self.epoch = Gauge("modelwarden_lease_epoch", "Epoch of the lease this process last held.", registry=r)
        self.received = Counter("modelwarden_records_received", "Records consumed.", ["topic"], registry=r)
        self.rejected = Counter(
            "modelwarden_records_rejected", "Records rejected as a whole.", ["topic", "reason"], registry=r
        )
        self.rows_rejected = Counter(
            "modelwarden_rows_rejected", "Bad rows of good records.", ["topic", "reason"], registry=r
        )
        self.dead_letters_dropped = Counter(
            "modelwarden_dead_letters_dropped", "Dead letters counted but not kept.", registry=r
        )
        self.lost = Counter("modelwarden_records_lost", "Offsets skipped or gone.", ["topic"], registry=r)
        self.unknown_fields = Counter("modelwarden_unknown_fields", "Fields ignored.", ["topic"], registry=r)
        self.time_corrected = Counter(
            "modelwarden_event_times_corrected", "Event times replaced by the broker's.", ["topic"], registry=r
        )
        self.pairing = Counter(
            "modelwarden_pairing", "What became of requests and responses.", ["topic", "outcome"], registry=r
        )
        self.pairing_waiting = Gauge(
            "modelwarden_pairing_waiting", "Halves that wait for the other one.", ["topic", "half"], registry=r
        )
        self.pairing_bytes = Gauge("modelwarden_pairing_bytes", "Memory of waiting halves.", ["topic"], registry=r)
        self.lag = Gauge(
            "modelwarden_consumer_lag_records", "Records between position and end.", ["topic", "partition"], registry=r
        )
        self.lag_records = Gauge(
            "modelwarden_lag_records", "Records behind the end of the log.", ["topic", "partition"], registry=r
        )
        self.lag_seconds = Gauge(
            "modelwarden_lag_seconds",
            "Age of the last record taken, by the broker's time; 0 while nothing waits.",
            ["topic", "partition"],
            registry=r,
        )
        self.last_record = Gauge(
            "modelwarden_last_record_processed_timestamp_seconds", "When a record was last processed.", registry=r
        )
        self.predictions = Counter("modelwarden_predictions", "Predictions seen.", ["model"], registry=r)
        self.labels_seen = Counter("modelwarden_labels", "Labels seen.", ["model"], registry=r)
        for name, text in LABEL_COUNTERS.items():
            self.label_counters[name] = Counter(f"modelwarden_labels_{name}", text, ["model"], registry=r)
        self.predictions_duplicate = Counter(
            "modelwarden_predictions_duplicate", "Predictions whose event id was known; the first counts.", ["model"],
            registry=r,
        )  # fmt: skip
        self.labels_waiting = Gauge(
            "modelwarden_labels_waiting", "Labels that came before their prediction.", ["model"], registry=r
        )
        self.predictions_pending = Gauge(
            "modelwarden_predictions_pending", "Predictions kept to be joined with labels.", ["model"], registry=r
        )
        self.label_rate = Gauge(
            "modelwarden_label_sample_rate", "Share of predictions kept for labels (labels.max_bytes).", ["model"],
            registry=r,
        )  # fmt: skip
        self.label_coverage = Gauge(
            "modelwarden_label_coverage", "Share of kept predictions at least this old that have a label.",
            ["model", "older_than"], registry=r,
        )  # fmt: skip
        self.label_lag = Gauge(
            "modelwarden_label_lag_seconds", "Time from prediction to label, of the last 1,024 joined.",
            ["model", "quantile"], registry=r,
        )  # fmt: skip
        self.figures = {
            name: Gauge(f"modelwarden_{name}", text, ["model"], registry=r) for name, text in FIGURES.items()
        }
        self.label_errors = Gauge(
            "modelwarden_label_error_ratio",
            "Share of joined labels, corrections included, that differ from the prediction (classes only).",
            ["model"], registry=r,
        )  # fmt: skip
        self.unwatched = Counter("modelwarden_predictions_unwatched", "Predictions beyond models.auto.max.", registry=r)
        self.sample_rate = Gauge(
            "modelwarden_sample_rate", "Share of predictions that statistical detectors are given (overload: sample).",
            ["model"], registry=r,
        )  # fmt: skip
        self.unjudged = Counter(
            "modelwarden_predictions_unjudged", "Predictions that statistical detectors were not given.", ["model"],
            registry=r,
        )  # fmt: skip
        self.smallest_shift = Gauge(
            "modelwarden_smallest_mean_shift_sd",
            "Smallest lasting shift of a mean that pages in half of the numeric columns, in standard deviations.",
            ["model"], registry=r,
        )  # fmt: skip
        self.independent_shift = Gauge(
            "modelwarden_smallest_mean_shift_independent_sd", "The same, were events independent and without season.",
            ["model"], registry=r,
        )  # fmt: skip
        self.design_effect = Gauge(
            "modelwarden_design_effect",
            "Variance of sums of 1,600 events over that of independent ones, median of the numeric columns.", ["model"],
            registry=r,
        )  # fmt: skip
        self.sensitivity_reduced = Gauge(
            "modelwarden_sensitivity_reduced", "1 while traffic varies too much for small changes (status says more).",
            ["model"], registry=r,
        )  # fmt: skip
        self.watched = Gauge("modelwarden_models_watched", "Models by condition.", ["state"], registry=r)
        self.clients = Gauge("modelwarden_clients_tracked", "Clients counted.", ["model"], registry=r)
        self.client_bytes = Gauge(
            "modelwarden_client_state_bytes", "Memory of the state of clients, about.", ["model"], registry=r
        )
        self.client_bytes_limit = Gauge(
            "modelwarden_client_state_limit_bytes", "What all models together may take (limits.client_state).",
            registry=r,
        )  # fmt: skip
        self.capital = Gauge(
            "modelwarden_account_capital", "Evidence of an account: it alarms at 1.", ["model", "account"], registry=r
        )
        self.alarms = Gauge(
            "modelwarden_account_alarms", "Alarms spent since the account began.", ["model", "account"], registry=r
        )
        self.open = Gauge("modelwarden_incidents_open", "Open incidents.", ["model", "kind", "severity"], registry=r)
        self.incidents = Counter("modelwarden_incidents", "Incidents opened.", ["model", "kind"], registry=r)
        self.failed_detectors = Counter(
            "modelwarden_detector_failures", "Detectors stopped by an error.", ["detector"], registry=r
        )
        self.commits = Counter("modelwarden_commits", "Commits done.", registry=r)
        self.commit_failures = Counter(
            "modelwarden_commit_failures", "Commits that failed and were retried.", registry=r
        )
        self.fenced = Counter(
            "modelwarden_fenced_commits", "Commits refused: another daemon holds the lease.", registry=r
        )
        self.commit_seconds = Histogram("modelwarden_commit_seconds", "Duration of commits.", registry=r)
        self.last_commit = Gauge("modelwarden_last_commit_timestamp_seconds", "When state was last stored.", registry=r)
        self.notifications = Counter("modelwarden_notifications", "Messages sent.", ["receiver"], registry=r)
        self.notifications_failed = Counter(
            "modelwarden_notifications_failed", "Messages a receiver did not take.", ["receiver"], registry=r
        )
        self.given_up = Counter(
            "modelwarden_notifications_given_up", "Messages a receiver refused for good.", ["receiver"], registry=r
        )
        self.outbox = Gauge(
            "modelwarden_outbox_messages",
            "Messages to a webhook: pending, delivered, failed (given up), as stored.",
            ["receiver", "status"],
            registry=r,
        )
        self.notified = Gauge(
            "modelwarden_last_notification_timestamp_seconds",
            "When a receiver last took a message.",
            ["receiver"],
            registry=r,
        )
        self.task_failures = Counter(
            "modelwarden_task_failures", "Recurring tasks that raised an error.", ["task"], registry=r
        )
        self.task_success = Gauge(
            "modelwarden_task_last_success_timestamp_seconds", "When a task last succeeded.", ["task"], registry=r
        )
        self.rows_removed = Counter("modelwarden_rows_removed", "Rows past retention.", ["table"], registry=r)
        self.database_bytes = Gauge("modelwarden_database_bytes", "Size of the database.", registry=r)
        self.state_bytes = Counter("modelwarden_state_bytes_written", "Bytes of state pages committed.", registry=r)
        self.config_reload_success = Gauge(
            "modelwarden_config_reload_success", "1 while the file as last read is in force whole.", registry=r
        )
        self.config_reload_success.set(1)
        self.series_dropped = Counter("modelwarden_series_dropped", "Series refused by limits.series.", registry=r)

    def limit(self, max_series: int) -> None:
        """Admit this many series from now on; those that are there stay."""
        self._max_series = max_series

    def admits(self, *series: str) -> bool:
        """Whether a series labelled by a model may be made: False, and counted, past `limits.series`."""
        if series in self._series:
            return True
        if len(self._series) >= self._max_series:
            self.series_dropped.inc()
            return False
        self._series.add(series)
        return True
