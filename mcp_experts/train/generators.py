"""Links of TR 38.901 through Sionna PHY: TDL and CDL profiles, and the system models UMi, UMa, RMa and InF; and rays.

Drawn for every link: the profile, line of sight or not (probability 1/2), the K-factor (of the scenarios of TR 38.901,
tables 7.5-6), the delay spread and the Doppler shift relative to the window (log-uniform), and the bandwidth. The
models are run over a duration of one second, so that shifts in Hz are shifts in cells.
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

from geoml.constants import SPEED_OF_LIGHT
from mcp_experts.channels.channel import SNAPSHOTS
from mcp_experts.experts.profile import EXPERT as PROFILE
from mcp_experts.experts.scenario import EXPERT as SCENARIO
from mcp_experts.train.clusters import office_links, uwb_links
from mcp_experts.train.rays import ray_links
from mcp_experts.train.truths import (
    BANDWIDTH_HZ,
    DOPPLER_CELLS,
    LATEST_CELLS,
    NO_SPECULAR_DB,
    Links,
    crossing,
    log_uniform,
)

__all__ = [
    "ANTENNAS",
    "DELAY_SCALE_CELLS",
    "GENERATORS",
    "K_FACTORS_DB",
    "draw_k_factors_db",
    "generate",
    "tdl_profile",
]

Reals = NDArray[np.float64]

CARRIER_HZ = 3.5e9
WAVELENGTH_M = SPEED_OF_LIGHT / CARRIER_HZ
#: Number of links per call of Sionna, a compromise between speed and memory.
TOGETHER = 256
ANTENNAS = 2
DELAY_SCALE_CELLS = (0.05, 6.0)
#: Mean and standard deviation in dB of the K-factor in line of sight: UMi, UMa, RMa, InF.
K_FACTORS_DB = ((9.0, 5.0), (9.0, 3.5), (7.0, 4.0), (7.0, 8.0))
WITH_DIRECT, WITHOUT_DIRECT = "DE", "ABC"
FACTORIES = ("SL", "DL", "SH", "DH")


class _DrawnTDL(TDL):
    """A tapped delay line whose links differ in Doppler shift, direction of arrival and K-factor (TR 38.901, 7.7.6)."""

    def draw(self, doppler_cells: Reals, angle: Reals, k_factor: Reals) -> None:
        """Set the next call's links. Powers of the other taps add up to 1, and the specular one's is `k_factor`."""
        self._min_doppler = self._max_doppler = self._each(2 * np.pi * doppler_cells).unsqueeze(-1)
        if self._los:
            self._mean_powers = self._mean_powers / self._mean_powers.sum()  # type: ignore[has-type]
            self._los_angle_of_arrival = self._each(angle)
            self._los_power = self._each(k_factor)

    def _each(self, values: Reals) -> torch.Tensor:
        """One value per link, in the shape of the model's taps."""
        return torch.tensor(values, dtype=self.dtype).reshape(-1, 1, 1, 1, 1, 1, 1)


class _DrawnCDL(CDL):
    """A clustered delay line whose K-factor is drawn for every link."""

    drawn: Reals

    def _get_k_factor(self, batch_size: int) -> torch.Tensor:
        if not self._has_los:
            return super()._get_k_factor(batch_size)
        return torch.tensor(self.drawn, dtype=self.dtype).reshape(batch_size, 1, 1)


def generate(name: str, count: int, seed: int) -> Iterator[Links]:
    """Generate `count` links with the generator `name`; deterministic for a seed."""
    rng = np.random.default_rng([seed, sorted(GENERATORS).index(name)])
    config.seed = int(rng.integers(2**31))
    torch.manual_seed(int(rng.integers(2**31)))
    made = 0
    while made < count:
        together = min(TOGETHER, count - made)
        yield from GENERATORS[name](together, rng)
        made += together


def _tdl(count: int, rng: np.random.Generator) -> Iterator[Links]:
    letters = _letters(rng, count)
    for letter in np.unique(letters):
        size = int(np.sum(letters == letter))
        model = _DrawnTDL(str(letter), 1.0, CARRIER_HZ, num_rx_ant=ANTENNAS)
        k_db, angle, doppler = draw_k_factors_db(rng, size), rng.uniform(0, np.pi, size), _doppler(rng, size)
        los = letter in WITH_DIRECT
        k_factor = 10 ** (k_db / 10) if los else np.zeros(size)
        model.draw(doppler, angle, k_factor)
        # Modulus of the autocorrelation of a specular path plus Clarke's isotropic scattering.
        lags = np.geomspace(1e-3, 4, 400)
        turn = np.exp(2j * np.pi * (doppler * np.cos(angle))[:, None] * lags)
        correlation = np.abs(k_factor[:, None] * turn + j0(2 * np.pi * doppler[:, None] * lags))
        yield _links(
            model(size, SNAPSHOTS, SNAPSHOTS),
            rng,
            los=np.full(size, los),
            k_factor_db=k_db,
            doppler=doppler,
            coherence=crossing(correlation / (1 + k_factor[:, None]), lags),
            profile=PROFILE.classes.index(PROFILE.current(str(letter))),
        )


def tdl_profile(letter: str) -> tuple[Reals, Reals, bool]:
    """Return normalised delays and powers (sum 1) of the fading taps; True if a specular path precedes them."""
    model = TDL(letter, 1.0, CARRIER_HZ)
    powers = np.asarray(model._mean_powers.real, np.float64).ravel()
    return np.asarray(model._delays, np.float64).ravel(), powers / powers.sum(), letter in WITH_DIRECT


def _cdl(count: int, rng: np.random.Generator) -> Iterator[Links]:
    letters = _letters(rng, count)
    for letter in np.unique(letters):
        size = int(np.sum(letters == letter))
        doppler, k_db = _doppler(rng, size), draw_k_factors_db(rng, size)
        model = _DrawnCDL(
            str(letter), 1.0, CARRIER_HZ, _array(ANTENNAS), _array(1), ut_velocity=_velocity(rng, doppler)
        )
        model.drawn = 10 ** (k_db / 10)
        yield _links(
            model(size, SNAPSHOTS, SNAPSHOTS),
            rng,
            los=np.full(size, letter in WITH_DIRECT),
            k_factor_db=k_db,
            doppler=doppler,
            profile=PROFILE.classes.index(PROFILE.current(str(letter))),
        )


def _system(name: str) -> Callable[[int, np.random.Generator], Iterator[Links]]:
    """Create a generator for a system model, which derives large-scale parameters from random positions."""

    def links(count: int, rng: np.random.Generator) -> Iterator[Links]:
        los = rng.random(count) < 0.5
        doppler = _doppler(rng, count)
        model, place, inside = _dropped(name, count, rng)
        velocity = _velocity(rng, doppler)[:, None]
        model.set_topology(*place, velocity, inside, torch.tensor(los).reshape(count, 1, 1))
        yield _links(
            model(SNAPSHOTS, SNAPSHOTS),
            rng,
            los=los,
            k_factor_db=10 * np.log10(np.asarray(model._lsp.k_factor, np.float64).reshape(count)),
            doppler=doppler,
            scenario=SCENARIO.classes.index(name),
            scaled=False,
        )

    return links


def _dropped(name: str, count: int, rng: np.random.Generator) -> tuple[Any, tuple[torch.Tensor, ...], torch.Tensor]:
    """Create a system model, positions and orientations of its transmitters and receivers, and an indoor mask."""
    ut, bs = _array(ANTENNAS), _array(1)
    plain = {"enable_pathloss": False, "enable_shadow_fading": False}
    if name == "InF":
        kind = str(rng.choice(FACTORIES))
        drop = gen_tr38901_indoor_factory_topology(kind, count, 1)
        ut_loc, stations, ut_turn, turns, _, inside = [drop[index] for index in range(6)]
        each, one = torch.arange(count), torch.tensor(rng.integers(stations.shape[1], size=count))
        place = (ut_loc, stations[each, one][:, None], ut_turn, turns[each, one][:, None])
        return InF(CARRIER_HZ, ut, bs, "downlink", factory_scenario=kind, **plain), place, inside
    if name == "RMa":
        model: Any = RMa(CARRIER_HZ, ut, bs, "downlink", **plain)
    else:
        model = {"UMi": UMi, "UMa": UMa}[name](CARRIER_HZ, "low", ut, bs, "downlink", **plain)
    ut_loc, bs_loc, ut_turn, bs_turn, _, inside = gen_single_sector_topology(
        count, 1, name.lower(), indoor_probability=0.0
    )
    return model, (ut_loc, bs_loc, ut_turn, bs_turn), inside


def _rays(count: int, rng: np.random.Generator) -> Iterator[Links]:
    yield ray_links(
        count,
        rng,
        k_factor_db=draw_k_factors_db(rng, count),
        bandwidth_hz=log_uniform(rng, BANDWIDTH_HZ, count),
        delay_cells=log_uniform(rng, DELAY_SCALE_CELLS, count),
        doppler_cells=_doppler(rng, count),
        latest_cells=LATEST_CELLS,
    )


def _office(count: int, rng: np.random.Generator) -> Iterator[Links]:
    yield office_links(count, rng, _doppler(rng, count))


def _uwb(count: int, rng: np.random.Generator) -> Iterator[Links]:
    yield uwb_links(count, rng, _doppler(rng, count))


def _links(
    found: tuple[torch.Tensor, torch.Tensor],
    rng: np.random.Generator,
    *,
    los: NDArray[np.bool_],
    k_factor_db: Reals,
    doppler: Reals,
    coherence: Reals | None = None,
    profile: float = np.nan,
    scenario: float = np.nan,
    scaled: bool = True,
) -> Links:
    """Create links with a random bandwidth from Sionna's output; `scaled` delays get a random delay spread."""
    gains, delays = found
    count = len(gains)
    paths = np.asarray(gains)[:, 0, :, 0, 0].transpose(0, 2, 3, 1)  # receiver's antennas last
    tau = np.asarray(delays, np.float64)[:, 0, 0]
    # Unused path slots have no power and meaningless delays.
    empty = np.abs(paths).max(axis=(2, 3)) == 0
    tau = np.where(empty, 0, tau - np.where(empty, np.inf, tau).min(axis=1, keepdims=True))
    bandwidth = log_uniform(rng, BANDWIDTH_HZ, count)
    latest = np.maximum(tau.max(axis=1), 1e-12)
    if scaled:
        cells = log_uniform(rng, DELAY_SCALE_CELLS, count)
        tau = tau * (np.minimum(cells, LATEST_CELLS / latest) / bandwidth)[:, None]
    else:
        bandwidth = np.minimum(bandwidth, LATEST_CELLS / latest)
    return Links(
        gains=paths.astype(np.complex64),
        delays_s=tau,
        bandwidth_hz=bandwidth,
        los=los.astype(float),
        k_factor_db=np.where(los, k_factor_db, NO_SPECULAR_DB),
        doppler_cells=doppler,
        coherence_time_cells=np.full(count, np.nan) if coherence is None else coherence,
        profile=np.full(count, float(profile)),
        scenario=np.full(count, float(scenario)),
    )


def _letters(rng: np.random.Generator, count: int) -> NDArray[np.str_]:
    direct = rng.random(count) < 0.5
    return np.where(direct, rng.choice(list(WITH_DIRECT), count), rng.choice(list(WITHOUT_DIRECT), count))


def draw_k_factors_db(rng: np.random.Generator, count: int) -> Reals:
    """Draw K-factors in dB in line of sight; each scenario of `K_FACTORS_DB` is equally likely."""
    chosen = np.asarray(K_FACTORS_DB)[rng.integers(len(K_FACTORS_DB), size=count)]
    return np.clip(rng.normal(chosen[:, 0], chosen[:, 1]), -10, 25)


def _doppler(rng: np.random.Generator, count: int) -> Reals:
    """Largest Doppler shifts in cells of 1/duration."""
    return log_uniform(rng, DOPPLER_CELLS, count)


def _velocity(rng: np.random.Generator, doppler_cells: Reals) -> torch.Tensor:
    """Horizontal velocities `(n, 3)` in m/s, in random directions, with these largest shifts over a second."""
    heading = rng.uniform(0, 2 * np.pi, len(doppler_cells))
    way = np.stack([np.cos(heading), np.sin(heading), np.zeros_like(heading)], axis=-1)
    return torch.tensor(WAVELENGTH_M * doppler_cells[:, None] * way, dtype=torch.float32)


def _array(columns: int) -> PanelArray:
    return PanelArray(
        num_rows_per_panel=1,
        num_cols_per_panel=columns,
        polarization="single",
        polarization_type="V",
        antenna_pattern="omni",
        carrier_frequency=CARRIER_HZ,
    )


GENERATORS: dict[str, Callable[[int, np.random.Generator], Iterator[Links]]] = {
    "tdl": _tdl,
    "cdl": _cdl,
    "rays": _rays,
    "inh": _office,
    "uwb": _uwb,
    **{name.lower(): _system(name) for name in ("UMi", "UMa", "RMa", "InF")},
}
