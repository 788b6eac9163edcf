"""The fair CRPS at every cell of an ensemble, compared with scoringrules and xskillscore, in time and value.

The data are rain-like: float32 members, many of them 0. Each library is called on full arrays as in its documentation,
in its fastest layout: members last for scoringrules and ours, a labelled array for xskillscore. Some peers (`qd`,
xskillscore) do not compute the fair estimator; they still count in the times, since a factor would make them fair. The
values are compared with the fair estimators of scoringrules. Libraries take turns on one thread. A time is the smallest
over the rounds, which other work on the machine disturbs least.

- `vs_best_m8`, `vs_best_m16`, `vs_best_m50`, `vs_best_m100`: time of the fastest peer over ours, by number of members.
- `max_abs_diff`: largest difference of ours, in either layout, from the fair estimators of scoringrules.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from harness import least_seconds, main, peer

from geoml.cli.tables import show
from geoml.metrics import fair_crps

scoringrules, xskillscore = peer("crps", "scoringrules", "xskillscore")
MEMBERS = (8, 16, 50, 100)


def rain(cells: int, members: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Generate members `(cell, member)` and truth in mm/h; about half the values are 0."""
    rng = np.random.default_rng(members)
    scale = rng.gamma(0.5, 2, (cells, 1))
    drawn = np.maximum(scale * rng.normal(0.3, 1, (cells, members + 1)), 0).astype(np.float32)
    return np.ascontiguousarray(drawn[:, 1:]), np.ascontiguousarray(drawn[:, 0])


def contenders(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> dict[str, Callable[[], Any]]:
    """Return one call per library; ours in both memory layouts."""
    members_first = np.ascontiguousarray(x.T)
    forecast, observed = xr.DataArray(x, dims=("cell", "member")), xr.DataArray(y, dims="cell")
    return {
        "geoml": lambda: fair_crps(x, y, axis=-1),
        "geoml, members first": lambda: fair_crps(members_first, y),
        **{
            f"scoringrules {estimator}": functools.partial(
                scoringrules.crps_ensemble, y, x, estimator=estimator, backend="numba"
            )
            for estimator in ("fair", "qd", "pwm")
        },
        "xskillscore": lambda: xskillscore.crps_ensemble(observed, forecast, dim=[]),
    }


def measure(quick: bool) -> dict[str, float]:
    """Return the figures of this script by the keys of targets.yaml."""
    figures, rows, worst = {}, [], 0.0
    for members in MEMBERS:
        x, y = rain((400_000 if quick else 1_600_000) // members, members)
        calls = contenders(x, y)
        made = {name: np.asarray(call()) for name, call in calls.items()}  # also compiles
        for name in ("geoml", "geoml, members first"):
            for rival in ("scoringrules fair", "scoringrules pwm"):
                worst = max(worst, float(np.abs(made[name] - made[rival]).max()))
        seconds = least_seconds(calls, 5 if quick else 15)
        best = min(seconds[name] for name in calls if not name.startswith("geoml"))
        figures[f"vs_best_m{members}"] = best / seconds["geoml"]
        rows.append({"members": members, **{name: f"{1e9 * s / len(y):.0f}" for name, s in seconds.items()}})
    show(rows, title="ns a cell")
    return figures | {"max_abs_diff": worst}


if __name__ == "__main__":
    main("crps", measure)
