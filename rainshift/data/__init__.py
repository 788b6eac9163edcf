"""Prepared stores of rain and the selection of hours from them."""
