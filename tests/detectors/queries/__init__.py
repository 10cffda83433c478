"""Tests of detectors.queries."""
