"""Parse units of rain, in CF and common notations: amount or rate, and the factor to mm or mm/h."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from geoml.errors import DataError

__all__ = ["RainUnits", "rain_factor", "rain_units"]

WAY_OUT = "set data.units, for example data.units='mm h-1' for a rate or data.units=mm for the amount of a step"
#: Unit: factor to mm, mm3 of water or hours, and powers of length, mass and time.
_UNITS: dict[str, tuple[Fraction, int, int, int]] = {}
for _names, _factor, _powers in (
    ("mm millimeter millimetre", "1", (1, 0, 0)),
    ("m meter metre", "1000", (1, 0, 0)),
    ("cm centimeter centimetre", "10", (1, 0, 0)),
    ("dm decimeter decimetre", "100", (1, 0, 0)),
    ("um µm μm micron micrometer micrometre", "1/1000", (1, 0, 0)),
    ("in inch inche", "25.4", (1, 0, 0)),
    ("kg kilogram kilogramme", "1000000", (0, 1, 0)),  # a litre
    ("g gram gramme", "1000", (0, 1, 0)),
    ("l liter litre", "1000000", (3, 0, 0)),
    ("s sec second", "1/3600", (0, 0, 1)),
    ("min minute", "1/60", (0, 0, 1)),
    ("h hr hour", "1", (0, 0, 1)),
    ("d day", "24", (0, 0, 1)),
    ("week", "168", (0, 0, 1)),
):
    _UNITS |= {_name: (Fraction(_factor), *_powers) for _name in _names.split()}
_STEPS = {"step", "timestep", "time_step", "interval"}
#: Words for the quantity, which are ignored in units.
_WORDS = re.compile(
    r"\b(of|liquid|lwe|w\.?\s?e\.?|water|h2o|equivalent|depth|rain(fall)?|precip(itation)?|accum(ulated|ulation)?|total)"
    r"(?![a-z0-9])\.?"
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<word>[a-zµμ_]+)|(?P<sign>[/()*]))"
    r"(?P<power>\s*(?:\*\*|\^)\s*\(?[+-]?\d+\)?|\s?[+-]\d+|(?<=[a-zµμ_])\d+(?![\d.a-z]))?"
)


@dataclass(frozen=True)
class RainUnits:
    """Parsed unit of rain: `amount` or rate, and the `factor` that converts it to mm or mm/h."""

    factor: float
    amount: bool

    def to_rate(self, step_hours: float) -> float:
        """Return the factor that converts values to mm/h; amounts are over `step_hours`."""
        return self.factor / step_hours if self.amount else self.factor


def rain_factor(units: str | None, step_hours: float, *, label: str = "precipitation") -> float:
    """Return the factor that converts values in `units` to mm/h; amounts are divided by `step_hours`.

    Raises `DataError` for units that are not those of rain.

    >>> rain_factor("kg m-2 s-1", 1), rain_factor("mm/hr", 1), rain_factor("m", 1), rain_factor("mm per 5 min", 1)
    (3600.0, 1.0, 1000.0, 12.0)
    >>> rain_factor("mm", 0.25), rain_factor("mm day**-1", 24)
    (4.0, 0.041666666666666664)
    """
    return rain_units(units, label=label).to_rate(step_hours)


def rain_units(units: str | None, *, label: str = "precipitation") -> RainUnits:
    """Parse a unit string. Raises `DataError` if it is not an amount or rate of rain.

    Supported are depth of water, and mass or litres per area, optionally per time, in all common notations (`mm h-1`,
    `mm/hr`, `kg m**-2 s**-1`, `L/m²`, `0.1 mm`, `mm (3 h)-1`, `mm per 5 min`).

    >>> rain_units("0.1 mm"), rain_units("mm·h⁻¹")
    (RainUnits(factor=0.1, amount=True), RainUnits(factor=1.0, amount=False))
    """
    if units is None or not str(units).strip():
        raise DataError(f"{label} has no units; {WAY_OUT}")
    try:
        factor, powers, per_step = _parse(_tidied(str(units)))
    except ValueError as error:
        raise DataError(f"{label} has units {units!r}, which are not understood ({error}); {WAY_OUT}") from None
    length, mass, time = powers
    if (length, mass) not in ((1, 0), (-2, 1)) or time not in (0, -1) or (per_step and time):
        raise DataError(f"{label} has units {units!r}, which are not units of rain; {WAY_OUT}")
    return RainUnits(float(factor), amount=time == 0)


def _tidied(units: str) -> str:
    text = units.strip().translate(_SUPERSCRIPTS).lower()
    text = (
        re.sub(r"\\(mathrm|rm|text)\b|\\[,;:! ]|[{}$\[\]]", " ", text)
        .replace("·", " ")
        .replace("⋅", " ")
        .replace("×", " ")
    )
    text = text.replace("−", "-").replace("–", "-")
    text = re.sub(r"\bin\.", "in", text)
    text = re.sub(r"\btime[ _]step", "timestep", text).replace("_per_", " per ")
    text = _WORDS.sub(" ", text)
    text = re.sub(r"\bkgm(?=\s*[-^*0-9])", "kg m", text)
    text = re.sub(r"\bmm(?=(h|hr|s|d|day)\s*\^?-1$)", "mm ", text)
    text = re.sub(r"\btenths?\b", "0.1", re.sub(r"\bhundredths?\b", "0.01", text))
    text = re.sub(r"(?<=[a-z0-9])\.(?=[a-z(])", " ", text)  # kg.m-2.s-1
    return re.sub(r"\bper\b", "/", text).strip().rstrip("./")


def _parse(text: str) -> tuple[Fraction, tuple[int, int, int], bool]:
    """Parse a product of units. Returns factor, powers of length, mass and time, and whether it is per time step."""
    factor, powers, per_step, tokens = Fraction(1), [0, 0, 0], False, list(_tokens(text))
    if not tokens:
        raise ValueError("no unit found")
    for kind, value, power in _flat(tokens):
        if kind == "number":
            if powers[0] or powers[1]:
                _refuse_factor(value, power)
            factor *= Fraction(value) ** power
        elif value.removesuffix("s") in _STEPS:
            per_step = per_step or power == -1
        else:
            found = _UNITS.get(value) or _UNITS.get(value.removesuffix("s")) or _UNITS.get(value.removesuffix("es"))
            if found is None:
                raise ValueError(f"{value!r} is not a unit of rain")
            factor *= found[0] ** power
            powers = [sum_ + each * power for sum_, each in zip(powers, found[1:], strict=True)]
    return factor, (powers[0], powers[1], powers[2]), per_step


def _refuse_factor(value: str, power: int) -> None:
    """Raise `ValueError` for a multiplier after the unit (mm/h*10). In mm/3h, 3 is part of the interval."""
    if power > 0 and value != "1":
        raise ValueError(f"{value} after the unit")


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None or found.end() == place:
            raise ValueError(f"{text[place:].strip()!r}")
        kind = str(found.lastgroup if found.lastgroup != "power" else next(
            name for name in ("number", "word", "sign") if found[name]))  # fmt: skip
        power = int(re.sub(r"[\s*^()]", "", found["power"])) if found["power"] else 1
        yield kind, found[kind], power
        place = found.end()
        rest = re.match(r"\s*(?:\*\*|\^)?\s*\(?([+-]\d+)\)?", text[place:]) if found[kind] == ")" else None
        if rest and found[kind] == ")" and not found["power"]:
            yield "close_power", "", int(rest[1])
            place += rest.end()


def _flat(tokens: list[tuple[str, str, int]]) -> Iterator[tuple[str, str, int]]:
    """Yield numbers and units with their signed powers; a slash applies to the next unit or bracket."""
    divided, depth = False, 0
    held: list[tuple[str, str, int]] = []
    for position, (kind, value, power) in enumerate(tokens):
        following = tokens[position + 1] if position + 1 < len(tokens) else ("", "", 1)
        if value == "(" and kind == "sign":
            depth, held = depth + 1, []
        elif value == ")" and kind == "sign":
            outer = following[2] if following[0] == "close_power" else power
            sign = -1 if divided else 1
            yield from ((k, v, p * outer * sign) for k, v, p in held)
            divided, depth, held = False, depth - 1, []
        elif kind == "close_power":
            continue
        elif value == "/":
            divided = True
        elif value == "*":
            continue
        elif depth:
            held.append((kind, value, power))
        else:
            if kind == "number" and not divided and position and following[0] == "word" and following[2] < 0:
                raise ValueError(f"{value} {following[1]} is ambiguous: divided or multiplied")
            yield kind, value, -power if divided else power
            if not (
                divided and kind == "number" and following[0] == "word"
            ):  # per 3 hours: both are in the denominator
                divided = False
    if depth:
        raise ValueError("unclosed bracket")
