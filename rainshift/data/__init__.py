"""Prepared stores of rain data, and selection of hours from them."""
