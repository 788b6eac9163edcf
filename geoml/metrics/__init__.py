"""Scores as mergeable statistics."""
