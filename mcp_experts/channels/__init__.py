"""Channels: what a receiver measured, from files, arrays, path tables or a generator."""
