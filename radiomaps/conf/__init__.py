"""Configuration of radio maps; a package, so that Hydra finds it in a wheel."""
