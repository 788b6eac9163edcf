"""Scores of predictions by dimension name: xarray in, xarray out.

Every function takes the truth first and the prediction, an ensemble along `member`, second, and averages over the dims
named in `over` (default: all). Cells where the truth is NaN do not count; a prediction that is NaN where the truth is
known raises an error.

>>> import geoml, numpy as np, xarray as xr
>>> truth = xr.DataArray(np.array([[0.0, 1.0], [2.0, 5.0]]), dims=("time", "x"), attrs={"units": "mm h-1"})
>>> rain = xr.concat([truth, truth + 1], "member")
>>> float(geoml.scores.crps(truth, rain, member="member")), geoml.scores.mae(truth, rain, over="x").values
(0.25, array([0.5, 0.5]))
>>> list(geoml.scores.scorecard(truth, rain, metrics=["crps_fair", "bias"]).data_vars)
['crps_fair', 'bias']
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geoml.errors import UserError, unknown
from geoml.metrics.labelled import Weights, evaluate
from geoml.metrics.suite import METRICS, Suite

if TYPE_CHECKING:
    import xarray as xr

__all__ = [*METRICS, "scorecard"]

_DOC = """{about}

    Args:
        truth: a data array of any dims; NaN does not count.
        prediction: the same dims and `member`; without that dim it is one deterministic prediction.
        member: the dim of the ensemble.
        over: dims to average over (default: all); the result keeps the other dims.{more}
        weights: "area" for cell areas by latitude, a data array of weights, or None for equal weights.

    Returns a data array on the remaining dims, in {unit}. Raises `DataError` if dims or coordinates differ, or if a
    prediction is not finite where the truth is known.

    >>> import geoml, numpy as np, xarray as xr
    >>> truth = xr.DataArray(np.random.default_rng(0).gamma(0.5, 2.0, (4, 8, 8)), dims=("time", "y", "x"))
    >>> rain = xr.concat([truth * factor for factor in (0.5, 1.0, 2.0)], "member")
    >>> geoml.scores.{name}({call}).dims
    ()
    """
_OF_THE_DAY = ("diurnal_error", "diurnal_phase")
_TIMED = 'truth.assign_coords(time=np.arange(4).astype("M8[h]")), rain.assign_coords(time=np.arange(4).astype("M8[h]"))'


def __dir__() -> list[str]:
    return sorted(__all__)


def scorecard(
    truth: xr.DataArray,
    prediction: xr.DataArray,
    *,
    metrics: str | Sequence[str] | Mapping[str, Any] = "default",
    member: str = "member",
    over: str | Sequence[str] | None = None,
    weights: xr.DataArray | Weights = None,
    thresholds: Sequence[float] | None = None,
    windows: Sequence[int] | None = None,
) -> xr.Dataset:
    """Compute several scores in one pass over the fields; each score is a variable of the result.

    Args:
        truth: a data array of any dims; NaN does not count.
        prediction: the same dims and `member`; without that dim it is one deterministic prediction.
        metrics: names of `geoml.scores`, or the name of a predefined list: "default", "scorecard", "sequences".
        member: the dim of the ensemble.
        over: dims to average over (default: all); the result keeps the other dims.
        weights: "area" for cell areas by latitude, a data array of weights, or None for equal weights.
        thresholds: event thresholds in the unit of the truth, each a variable (`csi_5`); default: those of the list.
        windows: window sizes in cells of neighbourhood scores (`fss_5_16`); default: those of the list.

    Returns a data set whose variables have the attributes `units`, `perfect` and `direction`. Raises `UserError` for an
    unknown score, `DataError` where dims or coordinates differ or a prediction is not finite where the truth is known.

    >>> import geoml, numpy as np, xarray as xr
    >>> truth = xr.DataArray(np.arange(24.0).reshape(1, 4, 6), dims=("time", "y", "x"))
    >>> made = geoml.scores.scorecard(truth, truth + 1.0, metrics=["bias", "csi"], thresholds=[12])
    >>> {name: round(float(value), 3) for name, value in made.data_vars.items()}
    {'bias': 1.0, 'csi_12': 0.923}
    """
    suite = Suite.from_config(suite_config(metrics, thresholds=thresholds, windows=windows))
    return evaluate(suite, truth, prediction, member=member, over=over, weights=weights)


def suite_config(
    metrics: str | Sequence[str] | Mapping[str, Any],
    *,
    thresholds: Sequence[float] | None = None,
    windows: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Configuration of a suite, given the name of a predefined list, names of scores, or a configuration."""
    import yaml

    from geoml import conf

    if isinstance(metrics, str):
        from importlib.resources import files

        known = {item.name.removesuffix(".yaml"): item for item in (files(conf) / "metrics").iterdir()}
        if metrics in known:
            config = dict(yaml.safe_load(known[metrics].read_text(encoding="utf-8")))
        elif metrics in METRICS:
            config = {"metrics": [metrics]}
        else:
            raise unknown("score or list of scores", metrics, (*known, *METRICS))
    elif isinstance(metrics, Mapping):
        config = dict(metrics)
    else:
        config = {"metrics": list(metrics)}
    given = {"thresholds": thresholds, "windows": windows}
    return config | {key: list(values) for key, values in given.items() if values is not None}


def _score(name: str) -> Callable[..., xr.DataArray]:
    """Make the function that computes one metric."""
    kind = METRICS[name]
    takes = {"threshold": kind.takes_threshold, "window": kind.takes_window}

    def function(
        truth: xr.DataArray,
        prediction: xr.DataArray,
        *,
        member: str = "member",
        over: str | Sequence[str] | None = None,
        weights: xr.DataArray | Weights = None,
        **chosen: Any,
    ) -> xr.DataArray:
        for key in chosen:
            if not takes.get(key):
                raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
        for key, wanted in takes.items():
            if wanted and chosen.get(key) is None:
                raise UserError(f"{name} needs a {key}: geoml.scores.{name}(truth, prediction, {key}=…)")
        suite = Suite((name,), **{f"{key}s": [value] for key, value in chosen.items()})
        made = evaluate(suite, truth, prediction, member=member, over=over, weights=weights)
        return next(iter(made.data_vars.values())).rename(name)

    names = [key for key, wanted in takes.items() if wanted]
    signature = inspect.signature(function)
    options = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation="float") for key in names]
    kept = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=[*kept[:2], *options, *kept[2:]])  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = _documented(name, names)
    return function


def _documented(name: str, options: Sequence[str]) -> str:
    what = {
        "threshold": "an event is a value at or above this, in the unit of the truth",
        "window": "edge of the neighbourhood in cells",
    }
    call = _TIMED if name in _OF_THE_DAY else "truth, rain"
    call += "".join(f", {key}={value}" for key, value in (("threshold", 1.0), ("window", 2)) if key in options)
    return _DOC.format(
        about=inspect.cleandoc(METRICS[name].__doc__ or name).replace("\n", "\n    "),
        more="".join(f"\n        {key}: {what[key]}." for key in options),
        unit="the unit of the truth" if METRICS[name].unit == "field" else "no unit",
        name=name,
        call=call,
    )


crps_fair = _score("crps_fair")
crps = _score("crps")
mae = _score("mae")
rmse = _score("rmse")
bias = _score("bias")
mean_ratio = _score("mean_ratio")
correlation = _score("correlation")
spread = _score("spread")
spread_skill = _score("spread_skill")
csi = _score("csi")
frequency_bias = _score("frequency_bias")
exceedance_bias = _score("exceedance_bias")
sedi = _score("sedi")
brier = _score("brier")
reliability = _score("reliability")
resolution = _score("resolution")
roc_area = _score("roc_area")
average_precision = _score("average_precision")
rank_deviation = _score("rank_deviation")
outlier_excess = _score("outlier_excess")
log_histogram_distance = _score("log_histogram_distance")
quantile_error_95 = _score("quantile_error_95")
quantile_error_99 = _score("quantile_error_99")
quantile_error_999 = _score("quantile_error_999")
crps_fair_mean = _score("crps_fair_mean")
crps_fair_max = _score("crps_fair_max")
fss = _score("fss")
ralsd = _score("ralsd")
variogram_score = _score("variogram_score")
diurnal_error = _score("diurnal_error")
diurnal_phase = _score("diurnal_phase")
lag1_error = _score("lag1_error")
wet_spell_ratio = _score("wet_spell_ratio")
dry_spell_ratio = _score("dry_spell_ratio")
