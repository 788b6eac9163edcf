"""Clients: configuration for other programs, verdicts in the terminal, language models with the experts as tools."""
