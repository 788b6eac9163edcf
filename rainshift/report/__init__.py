"""Tables, figures and pages about rain."""
