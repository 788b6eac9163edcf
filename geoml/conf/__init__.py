"""Configuration groups shared by the domains; a package, so that Hydra finds it in a wheel."""
