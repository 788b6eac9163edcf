"""The synthetic planet: one seeded law of weather per region, in blocks that can be computed independently."""
