"""Configuration of the experts; a package, so that Hydra finds it in a wheel."""
