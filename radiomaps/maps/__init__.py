"""Traced maps and path tables: their layout and the stores that hold them."""
