"""Run folders, the record of their environment, and files written whole or not at all."""
