"""Run folders, records of their environment, and atomic writing of files."""
