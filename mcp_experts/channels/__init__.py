"""Channels, measured or simulated: from files, arrays, path tables or a generator."""
