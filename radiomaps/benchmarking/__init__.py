"""Models and baselines compared on one store: entries, scores, ablations, tables."""
