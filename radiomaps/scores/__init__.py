"""Scores of predicted radio maps over valid voxels, as published and in physical units."""

from radiomaps.scores.scoring import PUBLISHED, Builder, MapScores, published_suite, score

__all__ = ["PUBLISHED", "Builder", "MapScores", "published_suite", "score"]
