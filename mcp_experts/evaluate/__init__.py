"""Evaluation: frozen questions, arms with and without a language model, tables from real answers only."""
