"""Number of threads that ray tracing uses in this process."""

from __future__ import annotations

__all__ = ["limit_threads"]


def limit_threads(count: int) -> None:
    """Set the number of ray-tracing threads of this process: one where several workers share a machine.

    Raises the `UserError` of `radiomaps.raytrace.availability.prove` on a machine without LLVM or CUDA.
    """
    from radiomaps.raytrace import activate

    activate()
    import drjit as dr

    if dr.thread_count() != count:
        dr.set_thread_count(count)
