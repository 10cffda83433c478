"""Apache Kafka from its Maven artifacts."""

from tests.components.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
