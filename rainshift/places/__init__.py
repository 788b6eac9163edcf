"""Regions, their climates, and the division of time and space into splits."""
