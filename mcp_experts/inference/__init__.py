"""From a channel to a verdict: features, networks, classical estimates, the registry of experts."""
