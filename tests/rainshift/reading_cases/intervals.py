"""The interval that a value is of: bounds, steps that change, sums since a start."""

from __future__ import annotations

import numpy as np

from tests.rainshift.reading_cases.base import HOURS, RAIN, case, dataset, steps


@case("interval", "time bounds of an hour, stamped in the middle", "the bounds give step and stamp")
def _(folder):
    middle = HOURS - np.timedelta64(30, "m")
    data = dataset(time=middle, units="mm")
    data["time"].attrs["bounds"] = "time_bnds"
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    data["time_bnds"] = ("time", "nv"), np.stack([HOURS - np.timedelta64(1, "h"), HOURS], 1)
    data.to_netcdf(folder / "a.nc")


SIX = np.full((24, 30, 40), 6.0)


@case("interval", "amounts whose step changes from 15 to 5 minutes", "each over its own interval, averaged to 15 min",
      expected=SIX)  # fmt: skip
def _(folder):
    amounts = np.r_[np.full(12, 1.5), np.full(36, 0.5)][:, None, None] * np.ones((1, 30, 40))
    steps(amounts, [15] * 12 + [5] * 36, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "amounts whose step changes from 15 to 10 minutes", "refused: split the file", refused="step changes")
def _(folder):
    amounts = np.r_[np.full(12, 1.5), np.full(36, 1.0)][:, None, None] * np.ones((1, 30, 40))
    steps(amounts, [15] * 12 + [10] * 36, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "amounts for which a change of the step and missing times cannot be distinguished", "refused",
      refused="Either the step changes")  # fmt: skip
def _(folder):
    steps(RAIN, [15, 5, 15, 5, 15, 15], units="mm").to_netcdf(folder / "a.nc")


RUNNING = np.cumsum(RAIN, axis=0)


@case("interval", "sums since a start", "differences, said; the first time has none", expected=RAIN[1:])
def _(folder):
    dataset(RUNNING, units="mm").to_netcdf(folder / "a.nc")


DAYS = np.concatenate([np.cumsum(np.tile(RAIN, (2, 1, 1))[:10], 0), np.cumsum(np.tile(RAIN, (2, 1, 1))[:10], 0)])


@case("interval", "sums since a start that begins anew", "differences, and the sum itself after each reset",
      expected=np.concatenate([np.tile(RAIN, (2, 1, 1))[1:10], np.tile(RAIN, (2, 1, 1))[:10]]))  # fmt: skip
def _(folder):
    steps(DAYS, [60] * 20, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "sums since a start, by bounds that share their beginning", "differences", expected=RAIN[1:])
def _(folder):
    data = dataset(RUNNING, units="mm")
    data["time"].attrs["bounds"] = "time_bnds"
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    begin = np.full(6, HOURS[0] - np.timedelta64(1, "h"))
    data["time_bnds"] = ("time", "nv"), np.stack([begin, HOURS], 1)
    data.to_netcdf(folder / "a.nc")


@case("interval", "daily amounts", "rates of the day, in daily steps", expected=RAIN / 24)
def _(folder):
    steps(RAIN, [1440] * 6, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "monthly amounts", "refused: months are no equal steps", refused="calendar months")
def _(folder):
    months = np.array([f"2020-{m:02d}-01" for m in range(1, 7)], "M8[ns]")
    dataset(time=months, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "one time", "refused: set `data.step_minutes`", refused=r"data\.step_minutes")
def _(folder):
    dataset(units="mm").isel(time=[0]).to_netcdf(folder / "a.nc")


@case("interval", "one time, with `data.step_minutes=60`", "read", expected=RAIN[:1], step_minutes=60)
def _(folder):
    dataset(units="mm").isel(time=[0]).to_netcdf(folder / "a.nc")


@case("interval", "amounts whose step changes from 60 to 30 and 15 minutes", "each over its own, averaged to 60 min",
      expected=np.full((16, 30, 40), 2.0))  # fmt: skip
def _(folder):
    amounts = np.r_[np.full(8, 2.0), np.full(8, 1.0), np.full(16, 0.5)][:, None, None] * np.ones((1, 30, 40))
    steps(amounts, [60] * 8 + [30] * 8 + [15] * 16, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "amounts whose step grows from 5 to 15 minutes", "each over its own, averaged to 15 min",
      expected=np.full((24, 30, 40), 6.0))  # fmt: skip
def _(folder):
    amounts = np.r_[np.full(36, 0.5), np.full(12, 1.5)][:, None, None] * np.ones((1, 30, 40))
    steps(amounts, [5] * 36 + [15] * 12, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "hourly amounts with a gap of five hours", "each over its hour")
def _(folder):
    steps(RAIN, [60, 60, 60, 360, 60, 60], units="mm").to_netcdf(folder / "a.nc")


@case("interval", "amounts of three hours, by bounds", "each over its bounds", expected=RAIN / 3)
def _(folder):
    data = steps(RAIN, [180] * 6, units="mm")
    data["time"].attrs["bounds"] = "edges"
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    end = data["time"].values
    data["edges"] = ("time", "nv"), np.stack([end - np.timedelta64(3, "h"), end], 1)
    data.to_netcdf(folder / "a.nc")


@case("interval", "bounds that end before they start", "refused", refused="end before they start")
def _(folder):
    data = dataset(units="mm")
    data["time"].attrs["bounds"] = "edges"
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    data["edges"] = ("time", "nv"), np.stack([HOURS, HOURS - np.timedelta64(1, "h")], 1)
    data.to_netcdf(folder / "a.nc")


@case("interval", "bounds named `time_bnds` that no attribute names", "used")
def _(folder):
    data = dataset(units="mm")
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    data["time_bnds"] = ("time", "nv"), np.stack([HOURS - np.timedelta64(1, "h"), HOURS], 1)
    data.to_netcdf(folder / "a.nc")


@case("interval", "rates whose step changes from 15 to 5 minutes", "averaged to 15 min",
      expected=np.full((24, 30, 40), 6.0))  # fmt: skip
def _(folder):
    steps(np.full((48, 30, 40), 6.0), [15] * 12 + [5] * 36).to_netcdf(folder / "a.nc")


@case("interval", "a daily mean rate by cell_methods, in steps of a day", "read")
def _(folder):
    steps(RAIN, [1440] * 6, cell_methods="time: mean").to_netcdf(folder / "a.nc")


@case("interval", "the largest rate of each hour by cell_methods", "refused", refused="maximum")
def _(folder):
    dataset(cell_methods="time: maximum").to_netcdf(folder / "a.nc")


@case(
    "interval",
    "bounds of a day in hourly steps",
    "refused: intervals overlap",
    refused="multiple of the step of 86400 s",
)
def _(folder):
    data = dataset(units="mm")
    data["time"].attrs["bounds"] = "edges"
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    data["edges"] = ("time", "nv"), np.stack([HOURS - np.timedelta64(24, "h"), HOURS], 1)
    data.to_netcdf(folder / "a.nc")


@case("interval", "units of a month's sum", "refused: set `data.units`", refused=r"data\.units")
def _(folder):
    steps(RAIN, [1440] * 6, units="mm month-1").to_netcdf(folder / "a.nc")


@case("interval", "sums since a start that are stored descending in time", "sorted, then differences",
      expected=RAIN[1:])  # fmt: skip
def _(folder):
    dataset(RUNNING, units="mm").isel(time=slice(None, None, -1)).to_netcdf(folder / "a.nc")


@case("interval", "bounds of half an hour in the order (nv, time)", "used", expected=RAIN * 2)
def _(folder):
    data = dataset(units="mm")
    data["time"].encoding["units"] = "minutes since 2020-06-01"
    data["time_bnds"] = ("nv", "time"), np.stack([HOURS - np.timedelta64(30, "m"), HOURS])
    data.to_netcdf(folder / "a.nc")


for _units, _method in (("mm h-1", "sum"), ("mm", "mean")):

    @case("interval", f"`{_units}` whose cell_methods are `time: {_method}`", "refused: set `data.units`",
          refused=r"data\.units")  # fmt: skip
    def _(folder, units=_units, method=_method):
        steps(RAIN, [1440] * 6, units=units, cell_methods=f"time: {method}").to_netcdf(folder / "a.nc")


for _methods in ("time: mean within days time: maximum over days", "area: time: maximum", "time: percentile"):

    @case("interval", f"cell_methods `{_methods}`", "refused", refused="expected their sum or mean")
    def _(folder, methods=_methods):
        dataset(cell_methods=methods).to_netcdf(folder / "a.nc")


@case("interval", "the GRIB step type `max`", "refused", refused="expected their sum or mean")
def _(folder):
    dataset(GRIB_stepType="max").to_netcdf(folder / "a.nc")


@case("interval", "`time: sum (interval: 1 minute)` in mm", "amounts of each hour")
def _(folder):
    dataset(units="mm", cell_methods="time: sum (interval: 1 minute)").to_netcdf(folder / "a.nc")


FEW = np.zeros((24, 30, 40))
FEW[10:13] = RAIN[:3]


@case("interval", "sums since a start of a day with three wet hours", "differences", expected=FEW[1:])
def _(folder):
    steps(np.cumsum(FEW, 0), [60] * 24, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "sums since a start that begin with three dry days", "differences", expected=np.concatenate(
    [np.zeros((71, 30, 40)), np.tile(RAIN, (4, 1, 1))]))  # fmt: skip
def _(folder):
    rain = np.concatenate([np.zeros((72, 30, 40)), np.tile(RAIN, (4, 1, 1))])
    steps(np.cumsum(rain, 0), [60] * 96, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "sums since a start at four times", "differences", expected=RAIN[1:4])
def _(folder):
    dataset(RUNNING, units="mm").isel(time=slice(4)).to_netcdf(folder / "a.nc")


@case("interval", "amounts of five days, then of two days of hours", "refused", refused="Either the step changes")
def _(folder):
    amounts = np.r_[np.full(5, 24.0), np.full(48, 1.0)][:, None, None] * np.ones((1, 30, 40))
    steps(amounts, [1440] * 5 + [60] * 48, units="mm").to_netcdf(folder / "a.nc")


@case("interval", "monthly amounts with bounds", "refused: months are no equal steps", refused="calendar months")
def _(folder):
    months = np.array([f"2020-{m:02d}-01" for m in range(1, 8)], "M8[ns]")
    data = dataset(time=months[:6], units="mm")
    data["time"].encoding["units"] = "minutes since 2020-01-01"
    data["time_bnds"] = ("time", "nv"), np.stack([months[:6], months[1:]], 1)
    data.to_netcdf(folder / "a.nc")
