"""Received power, signal-to-noise ratio, rate and range of a link, with standard models of path loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import UserError, unknown

__all__ = ["MODELS", "link_budget"]

#: Thermal noise at 290 K, in dBm/Hz.
NOISE_DBM_HZ = -173.98
FARTHEST_M = 5000.0
#: Heights in m of TR 38.901: environment around a terminal, and antenna of the terminal; below, of the base station.
SURROUNDINGS_M, TERMINAL_M = 1.0, 1.5
STATION_M = {"umi": 10.0, "uma": 25.0}
#: Fraction of the Shannon bound that links attain, and their best spectral efficiency (3GPP TR 36.942, annex A.1).
ATTAINED, BEST = 0.6, 4.4


def link_budget(
    distance_m: float,
    frequency_hz: float,
    *,
    bandwidth_hz: float = 20e6,
    tx_power_dbm: float = 23.0,
    antenna_gains_db: float = 0.0,
    noise_figure_db: float = 7.0,
    needed_snr_db: float = 0.0,
    model: str = "free_space",
) -> dict[str, Any]:
    """Path loss, received power, SNR, rate, and the range at which the SNR falls to `needed_snr_db`.

    `model` is one of `MODELS`: ITU-R P.525 for free space, 3GPP TR 38.901 table 7.4.1-1 for streets (`umi`) and
    rooftops (`uma`), with and without line of sight, median over shadowing. The rate is 0.6 of the Shannon bound,
    at most 4.4 bit/s/Hz (3GPP TR 36.942). Raises `UserError` for values out of the model's range.

    >>> round(link_budget(100.0, 3.5e9)["path_loss_db"], 1)
    83.3
    """
    limits = {
        "distance_m": (distance_m, 1.0, 1e5 if model == "free_space" else FARTHEST_M),
        "frequency_hz": (frequency_hz, 0.5e9, 100e9),
        "bandwidth_hz": (bandwidth_hz, 1e3, 1e10),
        "tx_power_dbm": (tx_power_dbm, -50.0, 90.0),
        "antenna_gains_db": (antenna_gains_db, -50.0, 120.0),
        "noise_figure_db": (noise_figure_db, 0.0, 30.0),
        "needed_snr_db": (needed_snr_db, -40.0, 60.0),
    }
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise UserError(f"{name} is {value:g}; expected {low:g} to {high:g} with model {model}")
    loss = MODELS[model]
    noise = NOISE_DBM_HZ + 10 * math.log10(bandwidth_hz) + noise_figure_db
    sent = tx_power_dbm + antenna_gains_db

    def snr_db(distance: float) -> float:
        return sent - loss(distance, frequency_hz) - noise

    snr = snr_db(distance_m)
    efficiency = min(ATTAINED * math.log2(1 + 10 ** (snr / 10)), BEST)
    return {
        "path_loss_db": loss(distance_m, frequency_hz),
        "received_dbm": snr + noise,
        "noise_dbm": noise,
        "snr_db": snr,
        "rate_bit_s": efficiency * bandwidth_hz,
        "range_m": _range(snr_db, needed_snr_db, limits["distance_m"][2]),
        "model": model,
    }


def _range(snr_db: Callable[[float], float], needed: float, farthest: float) -> float | None:
    """The largest distance with the needed SNR, by bisection; None if the SNR is lower at one metre."""
    if snr_db(1.0) < needed:
        return None
    low, high = 1.0, farthest
    if snr_db(high) >= needed:
        return high
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if snr_db(middle) >= needed else (low, middle)
    return low


def _free_space(distance_m: float, frequency_hz: float) -> float:
    return 20 * math.log10(4 * math.pi * distance_m * frequency_hz / SPEED_OF_LIGHT)


def _in_sight(kind: str) -> Callable[[float, float], float]:
    near, factor, far = {"umi": (32.4, 21.0, 9.5), "uma": (28.0, 22.0, 9.0)}[kind]
    station = STATION_M[kind]
    across = station - TERMINAL_M

    def loss(distance_m: float, frequency_hz: float) -> float:
        slant = math.hypot(distance_m, across)
        carrier = 20 * math.log10(frequency_hz / 1e9)
        corner = 4 * (station - SURROUNDINGS_M) * (TERMINAL_M - SURROUNDINGS_M) * frequency_hz / SPEED_OF_LIGHT
        if distance_m <= corner:
            return near + factor * math.log10(slant) + carrier
        return near + 40 * math.log10(slant) + carrier - far * math.log10(corner**2 + across**2)

    return loss


def _out_of_sight(kind: str) -> Callable[[float, float], float]:
    start, factor, carrier = {"umi": (22.4, 35.3, 21.3), "uma": (13.54, 39.08, 20.0)}[kind]
    seen, across = _in_sight(kind), STATION_M[kind] - TERMINAL_M

    def loss(distance_m: float, frequency_hz: float) -> float:
        slant = math.hypot(distance_m, across)
        hidden = start + factor * math.log10(slant) + carrier * math.log10(frequency_hz / 1e9)
        return max(hidden, seen(distance_m, frequency_hz))

    return loss


MODELS: dict[str, Callable[[float, float], float]] = {
    "free_space": _free_space,
    "umi_los": _in_sight("umi"),
    "umi_nlos": _out_of_sight("umi"),
    "uma_los": _in_sight("uma"),
    "uma_nlos": _out_of_sight("uma"),
}
