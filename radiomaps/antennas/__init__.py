"""Antennas: patterns in closed form and measured, arrays with weights, sites in files, and cells over stored paths."""
