"""Links of TR 38.901 through Sionna PHY: TDL and CDL profiles, and the system models UMi, UMa, RMa and InF; and rays.

What is drawn: the profile or scenario, line of sight or not (even chances), the K-factor (of the scenarios of
TR 38.901, tables 7.5-6), delay spread and Doppler shift relative to the window (evenly in logarithm), the bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import j0
from sionna.phy import config
from sionna.phy.channel.tr38901 import CDL, TDL, InF, PanelArray, RMa, UMa, UMi
from sionna.phy.channel.utils import gen_single_sector_topology
from sionna.sys import gen_tr38901_indoor_factory_topology

from mcp_experts.channels import SNAPSHOTS
from mcp_experts.experts.profile import EXPERT as PROFILE
from mcp_experts.experts.scenario import EXPERT as SCENARIO
from mcp_experts.train.rays import ray_links
from mcp_experts.train.truths import NO_SPECULAR_DB, Links, crossing

__all__ = ["GENERATORS", "generate"]

CARRIER_HZ = 3.5e9
SPEED_OF_LIGHT = 299_792_458.0
#: Links that share a call, and with it profile, line of sight and Doppler shift.
TOGETHER = 32
ANTENNAS = 2
BANDWIDTH_HZ = (3e6, 80e6)
DELAY_SCALE_CELLS = (0.05, 6.0)
DOPPLER_CELLS = (0.05, 6.0)
#: Paths later than this many cells after the first would wrap around in the window.
LATEST_CELLS = 52.0
#: Mean and standard deviation in dB of the K-factor in line of sight: UMi, UMa, RMa, InF.
K_FACTORS_DB = ((9.0, 5.0), (9.0, 3.5), (7.0, 4.0), (7.0, 8.0))
SPEED_M_S = 10.0


class _ScaledTDL(TDL):
    """A tapped delay line in line of sight with the K-factor one asks for (TR 38.901, 7.7.6)."""

    def scale(self, k_factor: float) -> None:
        """Share the unit power between the specular path and the others so that their ratio is `k_factor`."""
        powers = self.mean_powers.clone()
        powers[0] -= self.mean_power_los
        self._mean_powers = powers / powers.sum() / (1 + k_factor)
        self._los_power = torch.tensor(k_factor / (1 + k_factor), dtype=powers.dtype)


class _ScaledCDL(CDL):
    """A clustered delay line whose K-factor is drawn for every link."""

    drawn: NDArray[np.float64]

    def _get_k_factor(self, batch_size: int) -> torch.Tensor:
        if not self._has_los:
            return super()._get_k_factor(batch_size)
        return torch.tensor(10 ** (self.drawn / 10), dtype=self.dtype).reshape(batch_size, 1, 1)


def generate(name: str, count: int, seed: int) -> Iterator[Links]:
    """`count` links of the generator of this name, in groups that share profile and Doppler shift."""
    rng = np.random.default_rng([seed, sorted(GENERATORS).index(name)])
    config.seed = int(rng.integers(2**31))
    torch.manual_seed(int(rng.integers(2**31)))
    made = 0
    while made < count:
        together = min(TOGETHER, count - made)
        yield GENERATORS[name](together, rng)
        made += together


def _tdl(count: int, rng: np.random.Generator) -> Links:
    letter = _letter(rng)
    los = letter in "DE"
    model = _ScaledTDL(
        letter,
        1.0,
        CARRIER_HZ,
        los_angle_of_arrival=float(rng.uniform(0, np.pi)),
        min_speed=SPEED_M_S,
        num_rx_ant=ANTENNAS,
    )
    k_db = _k_factor_db(rng, 1)[0] if los else NO_SPECULAR_DB
    if los:
        model.scale(10 ** (k_db / 10))
    doppler, rate = _doppler(rng)
    gains, delays = model(count, SNAPSHOTS, rate)
    specular = 10 ** (k_db / 10) / (1 + 10 ** (k_db / 10)) if los else 0.0
    # |R| of a specular path beside Clarke's isotropic scattering; the path's own shift is drawn, so take its modulus.
    lags = np.geomspace(1e-3, 4, 2000)
    shift = np.exp(2j * np.pi * doppler * np.cos(float(model._los_angle_of_arrival)) * lags)
    correlation = np.abs(specular * shift + (1 - specular) * j0(2 * np.pi * doppler * lags))
    return _links(
        gains,
        delays,
        rng,
        los=los,
        k_factor_db=np.full(count, k_db),
        doppler=doppler,
        coherence=float(crossing(correlation[None], lags)[0]),
        profile=PROFILE.classes.index(letter),
    )


def _cdl(count: int, rng: np.random.Generator) -> Links:
    letter = _letter(rng)
    model = _ScaledCDL(letter, 1.0, CARRIER_HZ, _array(ANTENNAS), _array(1), "downlink", min_speed=SPEED_M_S)
    model.drawn = _k_factor_db(rng, count)
    doppler, rate = _doppler(rng)
    gains, delays = model(count, SNAPSHOTS, rate)
    los = letter in "DE"
    k_db = model.drawn if los else np.full(count, NO_SPECULAR_DB)
    return _links(gains, delays, rng, los=los, k_factor_db=k_db, doppler=doppler, profile=PROFILE.classes.index(letter))


def _system(name: str) -> Callable[[int, np.random.Generator], Links]:
    """Links of a system model: places are dropped, large-scale parameters follow from them."""

    def links(count: int, rng: np.random.Generator) -> Links:
        los = bool(rng.random() < 0.5)
        model, topology = _dropped(name, count, rng)
        model.set_topology(*topology, los=los)
        doppler, rate = _doppler(rng)
        gains, delays = model(SNAPSHOTS, rate)
        k_factor = np.asarray(model._lsp.k_factor, np.float64).reshape(count)
        return _links(
            gains,
            delays,
            rng,
            los=los,
            k_factor_db=10 * np.log10(k_factor) if los else np.full(count, NO_SPECULAR_DB),
            doppler=doppler,
            scenario=SCENARIO.classes.index(name),
            scaled=False,
        )

    return links


def _dropped(name: str, count: int, rng: np.random.Generator) -> tuple[Any, tuple[torch.Tensor, ...]]:
    ut, bs = _array(ANTENNAS), _array(1)
    plain = {"enable_pathloss": False, "enable_shadow_fading": False}
    if name == "InF":
        kind = str(rng.choice(["SL", "DL", "SH", "DH"]))
        model: Any = InF(CARRIER_HZ, ut, bs, "downlink", factory_scenario=kind, **plain)
        drop = gen_tr38901_indoor_factory_topology(kind, count, 1)
        ut_loc, stations, ut_turn, turns, _, inside = [drop[index] for index in range(6)]
        one = int(rng.integers(stations.shape[1]))
        bs_loc, bs_turn = stations[:, one : one + 1], turns[:, one : one + 1]
    else:
        if name == "RMa":
            model = RMa(CARRIER_HZ, ut, bs, "downlink", **plain)
        else:
            model = {"UMi": UMi, "UMa": UMa}[name](CARRIER_HZ, "low", ut, bs, "downlink", **plain)
        ut_loc, bs_loc, ut_turn, bs_turn, _, inside = gen_single_sector_topology(
            count, 1, name.lower(), indoor_probability=0.0
        )
    heading = rng.uniform(0, 2 * np.pi, (count, 1))
    velocity = SPEED_M_S * np.stack([np.cos(heading), np.sin(heading), np.zeros_like(heading)], axis=-1)
    return model, (ut_loc, bs_loc, ut_turn, bs_turn, torch.tensor(velocity, dtype=torch.float32), inside)


def _rays(count: int, rng: np.random.Generator) -> Links:
    return ray_links(
        count,
        rng,
        k_factor_db=_k_factor_db(rng, count),
        bandwidth_hz=_log_uniform(rng, BANDWIDTH_HZ, count),
        delay_cells=_log_uniform(rng, DELAY_SCALE_CELLS, count),
        doppler_cells=_log_uniform(rng, DOPPLER_CELLS, count),
        latest_cells=LATEST_CELLS,
    )


def _links(
    gains: torch.Tensor,
    delays: torch.Tensor,
    rng: np.random.Generator,
    *,
    los: bool,
    k_factor_db: NDArray[np.float64],
    doppler: float,
    coherence: float = np.nan,
    profile: float = np.nan,
    scenario: float = np.nan,
    scaled: bool = True,
) -> Links:
    """What Sionna made, with a bandwidth drawn; `scaled` delays are relative to a spread that is drawn here too."""
    count = len(gains)
    paths = np.asarray(gains)[:, 0, :, 0, 0].transpose(0, 2, 3, 1)  # receiver's antennas last
    tau = np.asarray(delays, np.float64)[:, 0, 0]
    # Fewer paths than there is room for: the rest has no power, and delays that mean nothing.
    empty = np.abs(paths).max(axis=(2, 3)) == 0
    tau = np.where(empty, 0, tau - np.where(empty, np.inf, tau).min(axis=1, keepdims=True))
    bandwidth = _log_uniform(rng, BANDWIDTH_HZ, count)
    latest = np.maximum(tau.max(axis=1), 1e-12)
    if scaled:
        cells = _log_uniform(rng, DELAY_SCALE_CELLS, count)
        tau = tau * (np.minimum(cells, LATEST_CELLS / latest) / bandwidth)[:, None]
    else:
        bandwidth = np.minimum(bandwidth, LATEST_CELLS / latest)
    return Links(
        gains=paths.astype(np.complex64),
        delays_s=tau,
        bandwidth_hz=bandwidth,
        los=np.full(count, float(los)),
        k_factor_db=k_factor_db,
        doppler_cells=np.full(count, doppler),
        coherence_time_cells=np.full(count, coherence),
        profile=np.full(count, float(profile)),
        scenario=np.full(count, float(scenario)),
    )


def _letter(rng: np.random.Generator) -> str:
    return str(rng.choice(list("DE")) if rng.random() < 0.5 else rng.choice(list("ABC")))


def _k_factor_db(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    chosen = np.asarray(K_FACTORS_DB)[rng.integers(len(K_FACTORS_DB), size=count)]
    return np.clip(rng.normal(chosen[:, 0], chosen[:, 1]), -10, 25)


def _doppler(rng: np.random.Generator) -> tuple[float, float]:
    """A largest Doppler shift in cells of 1/duration, and the rate of snapshots that gives it at `SPEED_M_S`."""
    cells = float(_log_uniform(rng, DOPPLER_CELLS, 1)[0])
    return cells, SNAPSHOTS * SPEED_M_S * CARRIER_HZ / SPEED_OF_LIGHT / cells


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float], count: int) -> NDArray[np.float64]:
    return np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), count))


def _array(columns: int) -> PanelArray:
    return PanelArray(
        num_rows_per_panel=1,
        num_cols_per_panel=columns,
        polarization="single",
        polarization_type="V",
        antenna_pattern="omni",
        carrier_frequency=CARRIER_HZ,
    )


GENERATORS: dict[str, Callable[[int, np.random.Generator], Links]] = {
    "tdl": _tdl,
    "cdl": _cdl,
    "rays": _rays,
    **{name.lower(): _system(name) for name in ("UMi", "UMa", "RMa", "InF")},
}
