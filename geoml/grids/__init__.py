"""Axes, coordinates and grids."""
