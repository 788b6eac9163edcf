"""Synthetic planet: one seeded weather model per region, computed in independent blocks of time."""
