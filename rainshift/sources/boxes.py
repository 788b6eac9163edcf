"""Cut regions of the catalogue from files: find their folders and the rows and columns of their grids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from geoml.errors import DataError, UserError, unknown
from geoml.grids.grid import Grid
from rainshift.places.regions import region, regions

__all__ = ["below", "box_names", "cut", "folder_of", "require_box", "require_root"]


def require_root(root: str | None, option: str, what: str) -> Path:
    """Return the folder in an option. Raises `UserError` if the option is not set or the folder does not exist."""
    if not root:
        raise UserError(f"data.{option} is not set; point it at {what}")
    path = Path(root).expanduser()
    if not path.exists():
        raise UserError(f"data.{option} {path} does not exist; point it at {what}")
    return path


def box_names(boxes: Sequence[str], root: Path) -> tuple[str, ...]:
    """Return the regions to use: `boxes`, or if empty, all regions with a separate folder under `root`."""
    if boxes:
        return tuple(region(str(name)).name for name in boxes)
    found = tuple(sorted(name for name in regions() if (root / name).is_dir()))
    if not found:
        raise UserError(
            f"data.boxes is empty, and no folder in {root} has the name of a region; set data.boxes=[NAME, …] "
            "(`rainshift regions` lists them)"
        )
    return found


def require_box(name: str, names: Sequence[str], split: str | None) -> None:
    """Raise `UserError` for a region that is not among `names`, and for any split, which these files do not have."""
    if split is not None:
        raise unknown("split", split, ())
    if name not in names:
        raise unknown("region", name, names)


def folder_of(root: Path, name: str) -> Path:
    """Return the folder of a region's files: the folder with its name if it exists, else `root`."""
    return root / name if (root / name).is_dir() else root


def below(root: Path, files: Iterable[Path], prefix: str = "") -> dict[str, Path]:
    """Return files by path relative to `root`, which may itself be the only file."""
    names = {(path.name if path == root else path.relative_to(root).as_posix()): path for path in files}
    return {f"{prefix}/{name}" if prefix else name: path for name, path in names.items()}


def cut(grid: Grid, wanted: Grid, label: str) -> tuple[slice, slice]:
    """Return rows and columns of `grid` that match `wanted`. Raises `DataError` if spacing or extent do not fit."""
    parts = []
    for have, want in zip(grid.axes, wanted.axes, strict=True):
        if abs(have.step - want.step) > 1e-4 * want.step:
            hint = "; ERA5-Land, which accumulates from midnight, is not supported" if want.step == 0.25 else ""
            raise DataError(f"{label}: {want.name} has a step of {have.step:g}°; expected {want.step:g}°{hint}")
        turns = (0.0, 360.0, -360.0) if want.name == "lon" else (0.0,)
        places = [(want.start + turn - have.start) / have.step for turn in turns]
        inside = [p for p in places if p > -0.01 and p + want.size - 1 < have.size - 0.99]
        if not inside:
            raise DataError(
                f"{label}: {want.name} covers {have.start:g} to {have.stop:g}; expected at least {want.start:g} to "
                f"{want.stop:g}"
            )
        first = round(inside[0])
        if abs(inside[0] - first) > 0.01:
            raise DataError(f"{label}: {want.name} has no point at {want.start:g}; the nearest is off by "
                            f"{abs(inside[0] - first) * have.step:.3g}°")  # fmt: skip
        parts.append(slice(first, first + want.size))
    return parts[0], parts[1]
