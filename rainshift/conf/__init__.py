"""Configuration of RainShift; a package, so that Hydra finds it in a wheel."""
