"""Downscalers: their specification, the oracle, and trust maps for regions without training data."""
