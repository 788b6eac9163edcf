"""Benchmark of models, training sets and test regions: plan, run, and analysis of the loss out of distribution."""
