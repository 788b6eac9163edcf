"""One file per expert, `NAME.py` with its `EXPERT`, and one folder, `NAME/`, with its weights and card."""
