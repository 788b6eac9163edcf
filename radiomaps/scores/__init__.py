"""Scores of predicted radio maps, as published and in physical units, of valid voxels alone."""

from radiomaps.scores.scoring import PUBLISHED, Builder, MapScores, published_suite, score

__all__ = ["PUBLISHED", "Builder", "MapScores", "published_suite", "score"]
