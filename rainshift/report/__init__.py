"""Tables, figures and pages of rain."""
