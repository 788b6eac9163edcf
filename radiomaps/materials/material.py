"""A material of walls, roofs or ground: its properties at a frequency, and tables of materials in files."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from geoml.constants import SPEED_OF_LIGHT, VACUUM_PERMITTIVITY
from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import column_name, csv_rows, read_text
from geoml.runs.stored_config import parse_yaml
from radiomaps.materials.itu import ITU_MATERIALS, Properties, itu_properties

__all__ = ["Material", "materials_of", "materials_used", "read_materials"]

#: Alternative names of columns, and the factor to their unit.
_SAME: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("eps_r", "epsilon_r", "relative_permittivity", "permittivity", "eps", "epsilon", "er", "ε_r", "εr",
                     "ε", "dielectric_constant"), ("a", 1.0)),
    **{f"{name}{unit}": ("c", factor) for name in ("sigma", "conductivity", "σ")
       for unit, factor in (("", 1.0), ("_s_m", 1.0), ("_ms_m", 1e-3))},
    "thickness": ("thickness_m", 1.0), "thickness_cm": ("thickness_m", 0.01), "thickness_mm": ("thickness_m", 0.001),
    "scattering_coefficient": ("scattering", 1.0), "material": ("name", 1.0), "loss": ("loss_db", 1.0),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Material:
    """A material: ε_r = a f^b and σ = c f^d in S/m, with f in GHz (ITU-R P.2040).

    Without `a` the properties are those of the ITU material of this name. `thickness_m` is that of a wall or roof
    (None: the trace's `thickness_m`; ground is always a half-space). `scattering` is the share S of the reflected
    amplitude that is scattered (None: the trace's). `loss_db` weakens reflections further.

    >>> Material(name="stucco", a=4.0, c=0.02).at(3.5e9)
    Properties(eps_r=4.0, sigma=0.02, measured=True)
    """

    name: str
    a: float | None = None
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    thickness_m: float | None = None
    scattering: float | None = None
    loss_db: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", str(self.name).strip())
        where = f"material {self.name!r}"
        if not self.name:
            raise UserError("a material needs a name")
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value is None:
                continue
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not math.isfinite(number) or isinstance(value, bool):
                raise UserError(f"{where}: {field.name}={value!r} is no number")
            object.__setattr__(self, field.name, number)
        if self.a is None and self.name not in ITU_MATERIALS:
            raise unknown(f"{where} has no eps_r, and ITU-R P.2040 has no material", self.name, ITU_MATERIALS)
        if self.a is None and (self.b or self.c or self.d):
            raise UserError(f"{where}: give eps_r (or a) with sigma and the other coefficients")
        for name, low, high in (("a", 1.0, 1e6), ("c", 0.0, 1e9), ("thickness_m", 1e-6, 1e4), ("scattering", 0.0, 1.0),
                                ("loss_db", 0.0, 200.0)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                said = {"a": "eps_r", "c": "sigma"}.get(name, name)
                raise UserError(f"{where}: {said}={value:g}; expected {low:g} … {high:g}")

    def at(self, frequency_hz: float) -> Properties:
        """Relative permittivity and conductivity at a frequency."""
        if self.a is None:
            return itu_properties(self.name, frequency_hz)
        f = frequency_hz / 1e9
        eps_r = self.a * f**self.b
        if eps_r < 1:
            raise UserError(f"material {self.name!r} has eps_r={eps_r:.3g} at {f:g} GHz; expected 1 or more")
        return Properties(eps_r, self.c * f**self.d)

    def half_space_m(self, frequency_hz: float) -> float:
        """A thickness beyond which reflections from the far side are negligible, even for weak absorption.

        A wave through it and back is weaker by 120 dB; without any loss there would be no such thickness, so a loss
        tangent of 1e-4 is assumed at least.
        """
        eps_r, sigma, _ = self.at(frequency_hz)
        omega = 2 * math.pi * frequency_hz
        loss = max(sigma / (omega * VACUUM_PERMITTIVITY), 1e-4 * eps_r)
        damping = -(complex(eps_r, -loss) ** 0.5).imag * omega / SPEED_OF_LIGHT
        return 6 * math.log(10) / (2 * damping)

    def scattered(self, default: float) -> float:
        """Effective scattering coefficient: it reduces specular reflections by scattering and by `loss_db` together."""
        share = default if self.scattering is None else self.scattering
        return math.sqrt(1 - (1 - share**2) * 10 ** (-self.loss_db / 10))

    def describe(self) -> dict[str, Any]:
        """The fields that are set, as JSON types; `Material(**described)` is equal."""
        return {key: value for key, value in asdict(self).items() if value is not None and value != 0.0}


def read_materials(path: str | os.PathLike[str]) -> tuple[Material, ...]:
    """Materials of a `.csv` or `.yaml` file.

    CSV: a header of `name` and any of `eps_r`, `sigma` (S/m) or `a`, `b`, `c`, `d`, then `thickness_m`, `scattering`,
    `loss_db`, in any case and with other units (`Thickness (cm)`, `sigma (mS/m)`); `#` begins a comment, empty cells
    are unset. YAML: a mapping from names to such fields. A row of an ITU name without `eps_r` keeps the ITU properties.
    Raises `DataError` with the row that is wrong.
    """
    path = Path(path)
    text = read_text(path, "materials file")
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        rows = parse_yaml(text, path)
    elif path.suffix.lower() == ".csv":
        rows = csv_rows(text, path)
    else:
        raise UserError(f"materials file {path} is {path.suffix or 'without a suffix'}; expected .csv, .yaml or .json")
    try:
        return materials_of(rows)
    except UserError as error:
        raise DataError(f"{path}: {error}") from error


def materials_of(table: Any) -> tuple[Material, ...]:
    """Materials of a path, a mapping from names to fields, or a list of `Material` and mappings with `name`."""
    if table is None:
        return ()
    if isinstance(table, str | os.PathLike):
        return read_materials(table)
    if isinstance(table, Mapping):
        table = [{"name": name, **(row if isinstance(row, Mapping) else {"": row})} for name, row in table.items()]
    if not isinstance(table, Iterable):
        raise UserError(f"materials={table!r}; expected a file, or a mapping from names to eps_r, sigma, …")
    found: dict[str, Material] = {}
    for row in table:
        material = row if isinstance(row, Material) else _material(row)
        if material.name in found:
            raise UserError(f"material {material.name!r} is defined twice; expected unique names")
        found[material.name] = material
    return tuple(found.values())


def _material(row: Any) -> Material:
    known = [field.name for field in fields(Material)]
    if not isinstance(row, Mapping):
        raise UserError(f"material {row!r}; expected name, eps_r, sigma, thickness_m, scattering")
    values: dict[str, Any] = {}
    given = {column_name(key): value for key, value in row.items()}
    what = repr(given.get("name", given.get("material", "?")))
    for name, value in given.items():
        field, factor = _SAME.get(name, (name, 1.0))
        if field not in known:
            raise unknown(f"column of material {what}:", name, [*known, "eps_r", "sigma"])
        if field in values:
            raise UserError(f"material {what}: {name!r} and another column both set {field!r}")
        values[field] = value if field == "name" else _scaled(value, factor)
    if "name" not in values:
        raise UserError(f"a material without a name: {dict(row)}")
    if "a" not in values and (plain := column_name(values["name"]).removeprefix("itu_")) in ITU_MATERIALS:
        values["name"] = plain
    return Material(**values)


def _scaled(value: Any, factor: float) -> Any:
    """Multiply a number (with a decimal point or comma) by a factor; other values are returned unchanged."""
    if isinstance(value, str) and value.count(",") == 1 and "." not in value:
        value = value.replace(",", ".")
    try:
        return value if factor == 1.0 or isinstance(value, bool) or value is None else float(value) * factor
    except (TypeError, ValueError):
        return value


def materials_used(names: Iterable[str], table: Iterable[Material], frequency_hz: float) -> dict[str, Material]:
    """Look up materials by name, in the table first, then in ITU-R P.2040; returns a mapping from names to materials.

    Warns once if the frequency is outside the ranges of ITU-R P.2040 for some of them.
    """
    given = {material.name: material for material in table}
    used, beyond = {}, []
    for name in sorted(set(names)):
        if name not in given and name not in ITU_MATERIALS:
            raise unknown("material", name, [*given, *ITU_MATERIALS], hint="or define it in a table of materials")
        used[name] = given.get(name) or Material(name=name)
        if not used[name].at(frequency_hz).measured:
            beyond.append(name)
    if beyond:
        warnings.warn(
            f"{', '.join(beyond)} at {frequency_hz / 1e9:g} GHz: outside the frequencies of ITU-R P.2040-4; building "
            "materials keep the law of its nearest range, ground follows the soil model of ITU-R P.527-6",
            stacklevel=2,
        )
    return used
