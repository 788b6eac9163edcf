"""Using the experts: snippets for other programs, verdicts at the terminal, a language model that asks them."""
