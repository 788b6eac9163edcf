"""Tables of a benchmark: scores, skill lost out of distribution, share of the oracle's skill, climate distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.cli.tables import cell
from geoml.metrics.base import reached

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "adaptation_table",
    "degradation_rows",
    "drop_rows",
    "map_rows",
    "oracle_rows",
    "score_rows",
    "shift_rows",
    "skill_rows",
]

#: Name of the model that samples the exact distribution of the rain, for data with a known distribution.
ORACLE = "oracle"


def _with_interval(estimate: float, low: float, high: float) -> str | None:
    """Format an estimate as `0.31 [0.28, 0.35]`; without brackets if it has no interval, None if it is NaN."""
    if not np.isfinite(estimate):
        return None
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"{estimate:.3g}"
    return f"{estimate:.3g} [{low:.3g}, {high:.3g}]"


def _by_region(results: xr.Dataset, name: str, **place: str) -> dict[str, str | None]:
    """Return a result with its interval by test region, selected at `place` along its other axes."""
    parts = [results[name + suffix].sel(place) for suffix in ("", "_low", "_high")]
    return {
        region: _with_interval(*(float(part.sel(test_region=region)) for part in parts)) for region in _regions(results)
    }


def _models(results: xr.Dataset) -> list[str]:
    return [str(name) for name in results["model"].values]


def _regions(results: xr.Dataset) -> list[str]:
    return [str(name) for name in results["test_region"].values]


def score_rows(results: xr.Dataset, metric: str = "crps_fair") -> list[dict[str, Any]]:
    """Return one row per model and distribution, with one column per region. A model without training has one row.

    `bounded %` is the largest share, over regions and seeds, of predicted values that were clipped to physical bounds.
    `outside %` is the largest share of predictor values outside the training range, if a model counts them.
    """
    rows, outside = [], results.get("largest_outside_share")  # absent in earlier results
    counted = outside is not None and bool(np.isfinite(outside).any())
    for model in _models(results):
        picked = results["score"].sel(metric=metric, model=model)
        values = {side: picked.sel(distribution=side).values for side in ("in", "out")}
        members = results["members"].sel(model=model).values
        known = members[np.isfinite(members)]
        same = np.array_equal(values["in"], values["out"], equal_nan=True)
        for side in ("any",) if same else ("in", "out"):
            found = values["in" if side == "any" else side]
            if np.isfinite(found).any():
                place = {"model": model, "distribution": "in" if side == "any" else side}
                bounded = results["largest_clipped_share"].sel(place)
                head = {
                    "model": model,
                    "trained": side,
                    "members": int(known[0]) if len(known) else None,
                    "bounded %": round(100 * float(bounded.max()), 3),
                }
                if outside is not None and counted:
                    beyond = float(outside.sel(place).max())
                    head["outside %"] = round(100 * beyond, 3) if np.isfinite(beyond) else None
                rows.append(head | dict(zip(_regions(results), map(float, found), strict=True)))
    return rows


def map_rows(shown: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    """Return one row per region and model: wet area, mass and maximum at the wettest time, relative to the target."""
    rows = []
    for region, data in shown.items():
        now = data.sel(time=np.datetime64(data.attrs["wettest"]))
        for model in map(str, now["model"].values) if "prediction" in now else ():
            field, target = now["prediction"].sel(model=model, member=0).values, now["target"].values
            known = np.isfinite(field) & np.isfinite(target)
            made, true = field[known], target[known]
            wet = reached(0.1)
            rows.append(
                {
                    "region": region,
                    "model": model,
                    "wet area": round(float((made >= wet).sum() / max((true >= wet).sum(), 1)), 3),
                    "mass": round(float(made.sum() / max(true.sum(), 1e-9)), 3),
                    "largest": round(float(made.max(initial=0) / max(true.max(initial=0), 1e-9)), 3),
                }
            )
    return rows


def drop_rows(results: xr.Dataset) -> list[dict[str, Any]]:
    """Return one row per model: skill lost outside the training regions, by region and on average, with intervals."""
    rows = []
    for model in _models(results):
        cells = _by_region(results, "skill_lost", model=model)
        if not any(cells.values()):
            continue
        mean = [float(results[f"mean_skill_lost{suffix}"].sel(model=model)) for suffix in ("", "_low", "_high")]
        rows.append({"model": model, **cells, "mean": _with_interval(*mean)})
    return rows


def oracle_rows(results: xr.Dataset) -> list[dict[str, Any]]:
    """Return one row per model and distribution: ratio of its skill to the oracle's skill; empty without an oracle."""
    if ORACLE not in _models(results):
        return []
    rows = []
    for model in _models(results):
        if model in (ORACLE, results.attrs["reference"]):
            continue
        for side in ("in", "out"):
            share = results["skill"].sel(model=model, distribution=side) / results["skill"].sel(
                model=ORACLE, distribution=side
            )
            if np.isfinite(share).any():
                values = dict(zip(_regions(results), map(float, share.values), strict=True))
                rows.append({"model": model, "trained": side, **values, "mean": float(share.mean())})
    return rows


def adaptation_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per model and region: skill by hours of local data and of aligned variants, gap and half gap."""
    table = []
    for row in rows:
        line: dict[str, Any] = {"model": row["model"], "region": row["region"]}
        *given, whole = row["hours"]
        names = [*(f"{hours} h" for hours in given), f"all, {whole} h"]
        for name, skill in [*zip(names, row["skill"], strict=True), *row["label_free"].items()]:
            line[name] = _with_interval(*(np.nan if value is None else value for value in skill))
        gap = row["gap_percent"]
        line["gap, %"] = None if gap is None else _with_interval(*(np.nan if value is None else value for value in gap))
        half = row["half_gap_hours"]
        line["half gap, h"] = half if half is not None or gap is None else "no gap"
        table.append(line)
    return table


def shift_rows(shifts: xr.Dataset) -> list[dict[str, Any]]:
    """Return one row per variable: its Wasserstein distance by region, marked "(chance)" if p ≥ 0.05."""
    rows = []
    for variable in map(str, shifts["variable"].values):
        row: dict[str, Any] = {"variable": variable}
        for region in map(str, shifts["region"].values):
            picked = shifts[["wasserstein", "wasserstein_p"]].sel(variable=variable, region=region)
            chance = "" if float(picked["wasserstein_p"]) < 0.05 else " (chance)"
            row[region] = f"{cell(float(picked['wasserstein']))}{chance}"
        rows.append(row)
    return rows


def degradation_rows(results: xr.Dataset) -> list[dict[str, Any]]:
    """Return one row per model: increase of the CRPS outside the training regions, in percent."""
    cells = {model: _by_region(results, "degradation", model=model) for model in _models(results)}
    return [{"model": model, **row} for model, row in cells.items() if any(row.values())]


def skill_rows(results: xr.Dataset) -> list[dict[str, Any]]:
    """Return one row per model and distribution: its skill against the reference; one row if both sides are equal."""
    rows = []
    for model in _models(results):
        cells = {side: _by_region(results, "skill", model=model, distribution=side) for side in ("in", "out")}
        found = {"any": cells["in"]} if cells["in"] == cells["out"] else cells
        rows += [{"model": model, "trained": side, **row} for side, row in found.items() if any(row.values())]
        rows += _mean_rows(results, model)
    return rows


def _mean_rows(results: xr.Dataset, model: str) -> list[dict[str, Any]]:
    """Return rows with the RMSE skill of the ensemble mean, which ensemble spread alone cannot improve."""
    members = results["members"].sel(model=model)
    if "rmse" not in results["metric"].values or not float(members.max()) > 1:
        return []
    score = results["score"].sel(metric="rmse")
    skill = 1 - score.sel(model=model) / score.sel(model=results.attrs["reference"])
    values = {side: skill.sel(distribution=side).values for side in ("in", "out")}
    same = np.array_equal(values["in"], values["out"], equal_nan=True)
    return [
        {"model": f"{model}, mean of members (RMSE)", "trained": "any" if same else side}
        | {
            region: f"{value:.3g}" if np.isfinite(value) else None
            for region, value in zip(_regions(results), values[side], strict=True)
        }
        for side in (("in",) if same else ("in", "out"))
        if np.isfinite(values[side]).any()
    ]
