"""Training the experts: channels with drawn parameters, networks, calibration, cards. No server imports it."""
