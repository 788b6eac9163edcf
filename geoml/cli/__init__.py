"""The command line: verbs, help, composition of settings, progress and tables."""
