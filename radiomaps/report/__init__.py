"""Figures, charts and pages of radio maps."""
