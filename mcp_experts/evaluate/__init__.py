"""An honest evaluation: frozen questions, arms with and without a language model, a table that takes live rows only."""
