"""Ray-traced 3-D radio maps."""
