"""Generation of radio maps: the plan, its execution on workers, and receivers of path tables."""
