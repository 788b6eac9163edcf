"""A small language model on this machine: weights, calls constrained by the tools' schemas, an endpoint on loopback."""
