"""How many cores ray tracing takes in this process."""

from __future__ import annotations

__all__ = ["limit_threads"]


def limit_threads(count: int) -> None:
    """Let ray tracing use so many threads here: one a worker, where several workers share a machine.

    Without LLVM or CUDA the error is that of `radiomaps.raytrace.availability.prove`.
    """
    from radiomaps.raytrace import activate

    activate()
    import drjit as dr

    if dr.thread_count() != count:
        dr.set_thread_count(count)
