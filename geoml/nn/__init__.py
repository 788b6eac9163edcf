"""Network parts; every tensor is `(batch, channel, *space)` and `dims` is 2 or 3."""
