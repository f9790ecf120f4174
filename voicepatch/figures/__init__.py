"""Metrics to figures, each a declaration over a tidy table."""
