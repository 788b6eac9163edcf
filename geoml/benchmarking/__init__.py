"""Parts common to all benchmarks: entries, cells, and the cache of finished results."""
