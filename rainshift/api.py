"""RainShift from Python: the same doors as the command line's, giving xarray objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["benchmark", "open_region"]


def open_region(
    region: str, split: str | None = None, *, data: str = "synthetic", cache: str = "runs/cache", **options: Any
) -> xr.DataTree:
    """One region's prepared data, prepared now where it is not yet: `rainshift.open("melanesia", "test")`.

    Args:
        region: a region, or an event of the data.
        split: "train", "validation", "test" as far as the data keep them apart; the first by default.
        data: a configuration of the group `data` (`synthetic`, `gridded`, …); `options` change its settings.
        cache: where prepared data, trainings and scores are kept.

    Returns a tree of lazy data sets: `condition` (time, lat, lon on the coarse grid), `target` with `precipitation` in
    mm/h, and `static` where there is any. Raises `UserError` for unknown names, `DataError` for data that cannot be
    read.
    """
    import xarray as xr

    from geoml.cli.compose import compose
    from geoml.runs.folder import plain
    from rainshift.data.archive import Archive

    overrides = [f"data={data}", *_overrides({f"data.{key}": value for key, value in options.items()})]
    archive = Archive(plain(compose("rainshift.conf", "prepare", overrides).data), Path(cache) / "data")
    split = split or archive.splits[0]
    archive.prepare(region, split)
    return xr.DataTree.from_dict({f"/{name}": group for name, group in archive.open(region, split).items()})


def benchmark(*overrides: str, **settings: Any) -> xr.Dataset:
    """The results of a benchmark as one data set: `rainshift.benchmark("experiment=demo", seeds=3)`.

    `overrides` are words of the command line, `settings` its keys as Python values (dots as double underscores:
    `trainer__samples=1000`). The run folder is `runs/benchmark/…` as on the command line, with page and figures; the
    variables are described in `rainshift.benchmarking.analysis.analyse`. Finished cells are taken from the cache.
    """
    from geoml.cli.compose import compose
    from geoml.cli.verbs import run_path
    from geoml.runs.folder import RunFolder
    from rainshift.benchmarking.run import Experiment
    from rainshift.report.results import write_benchmark

    words = [*overrides, *_overrides({key.replace("__", "."): value for key, value in settings.items()})]
    config = compose("rainshift.conf", "benchmark", words)
    with RunFolder.open(run_path("benchmark", config, words), config, resume=not config.run.fresh) as run:
        experiment = Experiment(config)
        outcome = experiment.run()
        write_benchmark(experiment, outcome, run)
    return outcome.results


def _overrides(values: Mapping[str, Any]) -> list[str]:
    """Python values as words of the command line."""
    return [f"{key}={_word(value)}" for key, value in values.items()]


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(_word(item) for item in value) + "]"
    if isinstance(value, str | Path):
        quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return str(value)
