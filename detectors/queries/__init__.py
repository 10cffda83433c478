"""Signals of attacks in the queries of single clients: exact repeats out, then sequential tests against honest use."""
