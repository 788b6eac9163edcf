"""The synthetic planet: a law of weather per region, seeded, in pieces that any process can compute alone."""
