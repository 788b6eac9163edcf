"""Tracing of sets: the plan, its execution over workers, and exact paths to receivers."""
