"""The daemon: everything that knows Kafka, SQL, HTTP servers, files or the time."""

__version__ = "0.1.0"
