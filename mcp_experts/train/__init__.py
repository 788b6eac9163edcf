"""Training of experts: channels with random parameters, networks, calibration, cards. Not imported by the server."""
