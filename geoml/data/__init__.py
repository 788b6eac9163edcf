"""Stores, block readers, loaders and transforms of fields on grids."""
