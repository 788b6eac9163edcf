"""Downscalers: their specification, the oracle, and trust in a model where it was not trained."""
