"""Record of what was corrected, replaced or left out while a scene was read, with examples."""

from __future__ import annotations

__all__ = ["Repairs"]

_EXAMPLES = 3


class Repairs:
    """Counts of corrections by their description, each with up to three examples.

    >>> repairs = Repairs()
    >>> repairs.note("height not understood, default 9 m used", "way 5: '~12'")
    >>> repairs.note("slivers dropped", count=2)
    >>> repairs.lines()
    ("height not understood, default 9 m used: 1 (way 5: '~12')", 'slivers dropped: 2')
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def note(self, what: str, example: str = "", *, count: int = 1) -> None:
        """Add one correction (or `count`) of this kind."""
        if count < 1:
            return
        self._counts[what] = self._counts.get(what, 0) + count
        examples = self._examples.setdefault(what, [])
        if example and len(examples) < _EXAMPLES:
            example = "".join(letter if letter.isprintable() else "?" for letter in example)
            examples.append(example if len(example) <= 80 else example[:77] + "...")

    def lines(self) -> tuple[str, ...]:
        """One line per kind, in alphabetical order."""
        return tuple(f"{what}: {count}{self._shown(what, count)}" for what, count in sorted(self._counts.items()))

    def _shown(self, what: str, count: int) -> str:
        examples = self._examples[what]
        if not examples:
            return ""
        more = ", …" if count > len(examples) else ""
        return f" ({', '.join(examples)}{more})"

    def __bool__(self) -> bool:
        return bool(self._counts)
