"""Antennas: analytic and measured patterns, arrays with weights, sites files, and antennas applied to stored paths."""
