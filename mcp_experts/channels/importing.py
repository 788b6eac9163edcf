"""Import options for channel files in other layouts: names of arrays, order of axes, form and units.

Options are words `KEY=VALUE`, or a profile: a YAML file with the same keys for one measurement setup. The profile
`import.yaml` in a folder applies to all files of that folder. Values are text and numbers only; no code is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from mcp_experts.channels.arrays import Contents
from mcp_experts.channels.axes import arranged, in_order
from mcp_experts.channels.opening import PROFILE

__all__ = ["KEYS", "apply", "checked", "folder_options", "parse_options", "profile_text", "quantity", "read_profile"]

#: Largest size of a profile in bytes, and largest number of its values.
MOST_TEXT, MOST_VALUES = 16_384, 200
KEYS = {
    "csi": "over frequency: complex, real,imag or magnitude,phase",
    "taps": "the same over delay",
    "axes": "in order, as time,subcarrier,antenna; parts: real, imag",
    "form": "two arrays: iq (real, imaginary), polar (magnitude, phase)",
    "db": "true: magnitudes are in dB",
    "degrees": "true: phases are in degrees",
    "subcarrier_spacing": "30kHz, or a value or axis of the file, as 'freq MHz'",
    "bandwidth": "instead of subcarrier_spacing",
    "sample_rate": "of taps",
    "snapshot_interval": "such as 1ms, or a name in the file",
    "duration": "instead of snapshot_interval",
    "carrier": "such as 3.5GHz: Doppler shifts are also given as speeds",
}
#: Pairs of options of which each determines the other.
TWINS = (("subcarrier_spacing", "bandwidth"), ("snapshot_interval", "duration"))
FORMS, YES = ("iq", "polar"), {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
UNITS = {
    "": 1.0,
    "hz": 1.0,
    "khz": 1e3,
    "mhz": 1e6,
    "ghz": 1e9,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
FREQUENCIES, TIMES = ("hz", "khz", "mhz", "ghz"), ("s", "ms", "us", "µs", "ns")
#: Steps of an axis differ by at most this share.
EVEN = 0.01
Options = Mapping[str, str]


def parse_options(words: Iterable[str]) -> dict[str, str]:
    """Parse options from words. `profile=FILE` reads a profile; the other words take precedence over it.

    >>> parse_options(["csi=data", "axes=time,f", "bandwidth=20MHz"])
    {'csi': 'data', 'axes': 'time,f', 'bandwidth': '20MHz'}
    """
    found: dict[str, str] = {}
    base: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is no option; expected KEY=VALUE with one of {', '.join((*KEYS, 'profile'))}")
        if key == "profile":
            path = Path(value)
            if not path.is_file():
                raise UserError(f"profile={value} does not exist; mcp-experts check FILE … --save {value} writes one")
            base = read_profile(path)
        else:
            found[key] = value
    for one, other in TWINS:  # an option also overrides the other option of its pair in the profile
        for given, hidden in ((one, other), (other, one)):
            if given in found and hidden not in found:
                base.pop(hidden, None)
    return checked(base | found, "")


def read_profile(path: Path) -> dict[str, str]:
    """The options of a YAML file; a `DataError` for anything but a flat mapping of known keys."""
    from geoml.runs.stored_config import parse_yaml

    with open(path, "rb") as stream:
        data = stream.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        raise DataError(f"{path.name} has more than {MOST_TEXT} bytes; expected a few lines such as csi: data")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text; expected lines such as csi: data") from error
    found = parse_yaml(text, path.name, most=MOST_VALUES)
    if not isinstance(found, dict):
        raise DataError(f"{path.name} holds no options; expected lines such as csi: data")
    return checked({str(key): _text(path.name, str(key), value) for key, value in found.items()}, path.name)


def _text(place: str, key: str, value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise DataError(f"{place}: {key} is a {type(value).__name__}; expected text, a number, or a list of names")


def profile_text(options: Options) -> str:
    """Options as the YAML of a profile."""
    import yaml

    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)


def folder_options(path: Path) -> dict[str, str]:
    """The options of the profile in the folder of a file; empty if there is none."""
    beside = path.with_name(PROFILE)
    return read_profile(beside) if beside.is_file() else {}


def checked(options: dict[str, str], place: str) -> dict[str, str]:
    """Return the options unchanged if all keys and values are valid; otherwise raises `UserError`."""
    for key in options:
        if key not in KEYS:
            raise unknown(f"option of {place}" if place else "option", key, KEYS)
    if options.get("csi") and options.get("taps"):
        raise UserError("csi and taps are both named; expected one: csi over frequency, or taps over delay")
    for one, other in TWINS:
        if options.get(one) and options.get(other):
            raise UserError(f"{one} and {other} are both given; expected one of them, which gives the other")
    if options.get("form", "iq") not in FORMS:
        raise unknown("form", options["form"], FORMS)
    for key in ("db", "degrees"):
        if options.get(key, "false").lower() not in YES:
            raise UserError(f"{key}={options[key]}; expected true or false")
    for key in ("form", "db", "degrees", "axes"):
        if key in options and not (options.get("csi") or options.get("taps")):
            raise UserError(f"{key} without an array; add csi=NAME or taps=NAME")
    return options


def apply(found: Contents, options: Options, place: str) -> Contents:
    """Apply options: store the named arrays as `csi` or `taps` with ordered axes, and the sampling as attributes."""
    arrays, axes, attributes = dict(found.arrays), dict(found.axes), dict(found.attributes)
    kind = "taps" if options.get("taps") else "csi"
    named = [name.strip() for name in options.get(kind, "").split(",") if name.strip()]
    if named:
        names = [_resolved(found, name, place) for name in named]
        values = _joined(_alike(found, names, place), options, place)
        given = [name.strip() for name in options.get("axes", "").split(",") if name.strip()]
        known = axes.get(names[0], ())
        for old in ("csi", "taps"):
            for name in (old, f"{old}_real", f"{old}_imag"):
                arrays.pop(name, None)
                axes.pop(name, None)
        what = f"{place}: {named[0]}"
        arrays[kind] = arranged(values, given, what) if given else in_order(values, known, what)
    for key, name in (("subcarrier_spacing", "subcarrier_spacing_hz"), ("sample_rate", "sample_rate_hz")):
        if key in options:
            attributes[name] = quantity(found, options[key], key, place, FREQUENCIES)
    if "snapshot_interval" in options:
        attributes["snapshot_interval_s"] = quantity(
            found, options["snapshot_interval"], "snapshot_interval", place, TIMES
        )
    shaped = next((name for name in (kind, "csi", "csi_real", "taps", "taps_real") if name in arrays), None)
    if shaped is not None:
        _by_axes(
            found, options, arrays, axes, [name for name in (kind, f"{kind}_real", f"{kind}_imag") if name in arrays]
        )
        _by_extent(found, options, in_order(arrays[shaped], axes.get(shaped, ()), shaped), attributes, place)
    return Contents(arrays, attributes, axes)


def _by_extent(found: Contents, options: Options, values: NDArray[Any], attributes: dict[str, Any], place: str) -> None:
    """Set the spacings in `attributes` from bandwidth and duration, divided by the lengths of the axes."""
    first = 1 if values.ndim == 4 else 0
    for key, name, axis, units in (
        ("bandwidth", "subcarrier_spacing_hz", first, FREQUENCIES),
        ("duration", "snapshot_interval_s", first + 1, TIMES),
    ):
        if key in options:
            count = values.shape[axis] if values.ndim > axis else 1
            attributes[name] = quantity(found, options[key], key, place, units) / count
            if key == "bandwidth":
                attributes["sample_rate_hz"] = attributes[name] * count


def _by_axes(found: Contents, options: Options, arrays: dict[str, Any], axes: dict[str, Any], names: list[str]) -> None:
    """Sort the coefficients by the frequency and time axes that options name; frequencies may have gaps."""
    for key, offset, units in (("subcarrier_spacing", 0, FREQUENCIES), ("snapshot_interval", 1, TIMES)):
        given = _split(options.get(key, ""), units)[0]
        if not isinstance(given, str) or given not in (*found.arrays, *found.attributes):
            continue
        values = np.asarray(found.attributes.get(given, found.arrays.get(given))).ravel()
        for name in names if values.size > 1 else ():
            array = in_order(arrays[name], axes.pop(name, ()), name)
            along = offset + (array.ndim == 4)
            count = array.shape[along] if array.ndim > along else 1
            if count != values.size:
                raise DataError(f"{given} has {values.size} values, and {name} has {count} along that axis")
            arrays[name] = np.take(array, np.argsort(values, kind="stable"), axis=along)
        places = np.sort(values.astype(np.float64))
        if offset == 0 and values.size > 1 and (step := _step(values, gaps=True)):
            arrays["subcarrier_index"] = np.rint((places - places[0]) / step).astype(np.int64)


def _split(text: str, units: tuple[str, ...]) -> tuple[float | str, str]:
    """Split text into a number, or the name of a value in the file, and a unit."""
    number = re.fullmatch(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµ]*)\s*", text)
    if number is not None:
        return float(number[1]), number[2]
    name, _, unit = text.strip().rpartition(" ")
    return (name, unit) if name and unit.lower() in units else (text.strip(), "")


def quantity(found: Contents, text: str, what: str, place: str, units: tuple[str, ...]) -> float:
    """Return a quantity in Hz or s from text.

    `text` is a number with a unit ("30kHz"), or the name of a value or evenly spaced axis in the file, optionally
    followed by a space and a unit ("freq MHz"). Of an axis the step is returned.
    """
    value, unit = _split(text, units)
    if isinstance(value, str):
        value = _named(found, value, what, place)
    if unit and unit.lower() not in units:
        raise UserError(f"{what} {text!r}: unit {unit} unknown; expected one of {', '.join(units)}")
    return value * UNITS[unit.lower()]


def _named(found: Contents, name: str, what: str, place: str) -> float:
    value = found.attributes.get(name)
    if value is None:
        value = found.arrays[_resolved(found, name, place)]
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{place}: {name}, for {what}, holds no numbers")
    if array.size == 1:
        return float(array.item())
    step = _step(array.ravel(), gaps=what == "subcarrier_spacing")
    if (array.ndim > 1 and max(array.shape) != array.size) or not step:
        such = "1ms" if what in ("snapshot_interval", "duration") else "30kHz"
        raise DataError(f"{place}: {name}, for {what}, is not evenly spaced; give the step, such as {what}={such}")
    return step


def _step(values: NDArray[Any], *, gaps: bool) -> float:
    """Return the step of evenly spaced values in any order, 0 for others. With `gaps`, values may be missing."""
    steps = np.diff(np.sort(values.astype(np.float64)))
    step = float(np.median(steps))
    if not np.isfinite(steps).all() or step <= 0:
        return 0.0
    counts = np.maximum(np.rint(steps / step), 1) if gaps else np.ones_like(steps)
    return step if np.abs(steps - counts * step).max() <= EVEN * step * counts.max() else 0.0


def _alike(found: Contents, names: list[str], place: str) -> list[NDArray[Any]]:
    """Return the arrays, each transposed to the order of axes of the first if the file names the axes."""
    first = found.axes.get(names[0], ())
    parts = []
    for name in names:
        own, array = found.axes.get(name, ()), found.arrays[name]
        if own != first and sorted(own) == sorted(first) and len(set(own)) == array.ndim:
            array = np.transpose(array, [own.index(axis) for axis in first])
        parts.append(array)
    return parts


def _resolved(found: Contents, name: str, place: str) -> str:
    """Return the full name of the array `name`, which may omit its group; a `DataError` lists the available arrays."""
    if name in found.arrays:
        return name
    ends = [each for each in found.arrays if re.split(r"[/.]", each)[-1] == name]
    if len(ends) == 1:
        return ends[0]
    there = [f"{each} {'×'.join(map(str, array.shape))}" for each, array in found.arrays.items()]
    listed = ", ".join([*there, *map(str, found.attributes)][:12]) or "no arrays"
    why = f"has {len(ends)} arrays called {name}: {', '.join(ends)}" if ends else f"has no array {name!r}"
    raise DataError(f"{place} {why}; it holds {listed}")


def _joined(parts: list[NDArray[Any]], options: Options, place: str) -> NDArray[Any]:
    """Complex coefficients from one array or two."""
    db, degrees = (YES[options.get(key, "false").lower()] for key in ("db", "degrees"))
    polar = options.get("form") == "polar" or db or degrees
    names = [name.strip() for name in options.get("axes", "").split(",")]
    if len(parts) == 1 and "parts" in names:
        at = names.index("parts")
        if at >= parts[0].ndim or parts[0].shape[at] != 2:
            raise DataError(
                f"{place}: the axis parts of shape {parts[0].shape} has not two entries, real and imaginary"
            )
        parts = [np.take(parts[0], number, axis=at) for number in (0, 1)]
    if len(parts) == 1:
        return _amplitude(parts[0], db) if polar and parts[0].dtype.kind in "iuf" else parts[0]
    if len(parts) != 2 or parts[0].shape != parts[1].shape or any(part.dtype.kind not in "iuf" for part in parts):
        shapes = " and ".join(f"{part.dtype} {part.shape}" for part in parts)
        raise DataError(f"{place}: {shapes} are named; expected two arrays of real numbers of one shape")
    if any(part.dtype.kind == "u" for part in parts) and not polar:
        raise DataError(
            f"{place}: I and Q without a sign ({parts[0].dtype}); subtract their offset, and save them again"
        )
    if not polar:
        _refuse_polar(parts, options, place)
        joined: NDArray[Any] = parts[0] + 1j * parts[1]
        return joined
    _refuse_units(parts, options, place)
    phase = np.deg2rad(parts[1]) if degrees else parts[1]
    turned: NDArray[Any] = _amplitude(parts[0], db) * np.exp(1j * phase)
    return turned


def _refuse_polar(parts: list[NDArray[Any]], options: Options, place: str) -> None:
    """Refuse arrays that look like magnitude and phase, unless the form is given."""
    if "form" not in options and parts[0].size > 8 and parts[0].min() >= 0 and parts[1].min() < 0:
        raise DataError(
            f"{place}: the first array has no number below 0, as magnitudes have; say form=polar for magnitude and "
            "phase, or form=iq for real and imaginary parts"
        )


def _refuse_units(parts: list[NDArray[Any]], options: Options, place: str) -> None:
    """Refuse magnitudes below zero, and phases of more than a turn, unless their units are given."""
    if "db" not in options and parts[0].min() < 0:
        raise DataError(f"{place}: magnitudes below 0 ({float(parts[0].min()):g}); say db=true if they are in dB")
    low, high = float(parts[1].min()), float(parts[1].max())
    if "degrees" not in options and max(-low, high) > 2 * np.pi + 0.01:
        raise DataError(
            f"{place}: phases run from {low:g} to {high:g}; say degrees=true, or degrees=false for radians of more "
            "than a turn"
        )


def _amplitude(values: NDArray[Any], db: bool) -> NDArray[Any]:
    found: NDArray[Any] = 10.0 ** (np.asarray(values, np.float64) / 20) if db else values
    return found
