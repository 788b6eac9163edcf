"""Precipitation downscaling across regions."""
