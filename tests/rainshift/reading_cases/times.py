"""Times in calendars and units of all kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tests.rainshift.reading_cases.base import HOURS, RAIN, case, dataset


def _coded(values: Any, units: str, **attrs: Any) -> xr.Dataset:
    return dataset(time=np.arange(6)).assign_coords(time=("time", np.asarray(values), {"units": units, **attrs}))


@case("time", "days with six decimals", "snapped to whole minutes within a second, said")
def _(folder):
    days = ((HOURS - np.datetime64("1900-01-01")) / np.timedelta64(1, "D")).round(6)
    _coded(days, "days since 1900-01-01").to_netcdf(folder / "a.nc")


@case("time", "ends of intervals at 59 s", "snapped likewise")
def _(folder):
    dataset(time=HOURS - np.timedelta64(1, "s")).to_netcdf(folder / "a.nc")


@case("time", "numbers such as 20200601.25", "read")
def _(folder):
    _coded(20200601 + np.arange(1, 7) / 24, "day as %Y%m%d.%f").to_netcdf(folder / "a.nc")


for _calendar in ("noleap", "360_day", "julian", "proleptic_gregorian"):

    @case("time", f"calendar {_calendar}", "read")
    def _(folder, calendar=_calendar):
        _coded(np.arange(1, 7), "hours since 2020-06-01", calendar=calendar).to_netcdf(folder / "a.nc")


@case("time", "dates that do not exist (30 February of 360_day)", "refused", refused="do not exist")
def _(folder):
    _coded(np.arange(24, 30), "hours since 2021-02-29", calendar="360_day").to_netcdf(folder / "a.nc")


@case("time", "months since a date", "refused", refused="months since")
def _(folder):
    _coded(np.arange(6), "months since 2000-01-01").to_netcdf(folder / "a.nc")


@case("time", "another variable in months since a date", "read: it is not asked for")
def _(folder):
    data = dataset()
    data["clim"] = ("m", np.arange(3.0), {"units": "months since 2000-01-01"})
    data.to_netcdf(folder / "a.nc")


@case("time", "`valid_time`, descending", "sorted")
def _(folder):
    dataset().rename(time="valid_time").isel(valid_time=slice(None, None, -1)).to_netcdf(folder / "a.nc")


@case("time", "a forecast by `time` and `step`", "unrolled to valid times")
def _(folder):
    data = (
        dataset(units="mm")
        .rename(time="step")
        .assign_coords(step=np.arange(1, 7) * np.timedelta64(1, "h").astype("m8[ns]"))
    )
    data.expand_dims(time=[np.datetime64("2020-06-01", "ns")]).to_netcdf(folder / "a.nc")


for _unit, _seconds, _digits in (("hours", 3600, 4), ("minutes", 60, 2), ("seconds", 1, 0)):

    @case("time", f"{_unit} with {_digits} decimals and noise", "snapped to whole minutes within a second, said")
    def _(folder, unit=_unit, seconds=_seconds, digits=_digits):
        since = (HOURS - np.datetime64("2020-01-01")) / np.timedelta64(1, "s") / seconds
        _coded(since.astype(float).round(digits) + 0.3 / seconds, f"{unit} since 2020-01-01").to_netcdf(folder / "a.nc")


@case("time", "float32 hours since 1900", "read as they were rounded: whole hours")
def _(folder):
    since = (HOURS - np.datetime64("1900-01-01")) / np.timedelta64(1, "h")
    _coded(since.astype("f4"), "hours since 1900-01-01").to_netcdf(folder / "a.nc")


@case("time", "float32 days since 1900, which are minutes off", "refused", refused="multiple of the step|step changes")
def _(folder):
    since = (HOURS + np.timedelta64(20, "m") - np.datetime64("1900-01-01")) / np.timedelta64(1, "D")
    _coded(since.astype("f4"), "days since 1900-01-01").to_netcdf(folder / "a.nc")


for _unit in ("years", "fortnights", "common_years"):

    @case("time", f"another variable in {_unit} since a date", "read: it is not asked for")
    def _(folder, unit=_unit):
        data = dataset()
        data["clim"] = ("m", np.arange(3.0), {"units": f"{unit} since 2000-01-01"})
        data.to_netcdf(folder / "a.nc")


@case("time", "units with a zone, hours since 2020-06-01 00:00 +02:00", "in UTC")
def _(folder):
    _coded(np.arange(3, 9), "hours since 2020-06-01 00:00:00 +02:00").to_netcdf(folder / "a.nc")


@case("time", "a time twice", "refused", refused="occurs twice")
def _(folder):
    dataset(time=HOURS[[0, 1, 2, 2, 4, 5]]).to_netcdf(folder / "a.nc")


@case("time", "a time that is missing", "refused", refused="missing")
def _(folder):
    time = HOURS.copy()
    time[3] = np.datetime64("NaT")
    dataset(time=time).to_netcdf(folder / "a.nc")


@case("time", "numbers without a unit", "refused", refused="units attribute may be missing")
def _(folder):
    dataset(time=np.arange(6)).to_netcdf(folder / "a.nc")


@case("time", "a coordinate called Time with a standard name", "read")
def _(folder):
    data = dataset().rename(time="Times")
    data["Times"].attrs["standard_name"] = "time"
    data.to_netcdf(folder / "a.nc")


def _texts(form: Any, name: str = "time") -> xr.Dataset:
    data = dataset().drop_vars("time").rename(time=name)
    return data.assign_coords({name: (name, np.array([form(str(t)[:19]) for t in HOURS], dtype=object))})


for _what, _form in (
    ("2020-06-01T01:00:00", lambda text: text),
    ("2020-06-01T01:00:00Z", lambda text: f"{text}Z"),
    ("2020-06-01 03:00 +02:00", lambda text: f"{text.replace('T0', ' 0')[:11]}{int(text[11:13]) + 2:02d}:00 +02:00"),
):

    @case("time", f"text such as {_what}", "dates in UTC")
    def _(folder, form=_form):
        _texts(form).to_netcdf(folder / "a.nc")


@case("time", "characters `Times` along `Time`, 2020-06-01_01:00:00 (WRF)", "dates")
def _(folder):
    data = dataset().drop_vars("time").rename(time="Time")
    data["Times"] = "Time", np.array([str(t)[:19].replace("T", "_") for t in HOURS], dtype="S19")
    data.to_netcdf(folder / "a.nc")


@case("time", "text with a leap second, 2020-06-01T00:59:60", "the first second of the next minute")
def _(folder):
    _texts(lambda text: text.replace("T01:00:00", "T00:59:60")).to_netcdf(folder / "a.nc")


@case("time", "a dim `nt` whose times are a variable `time`", "read")
def _(folder):
    data = dataset().rename_dims(time="nt").reset_index("time").reset_coords("time")
    data.to_netcdf(folder / "a.nc")


@case("time", "a dim of any name with axis `T`", "read")
def _(folder):
    _coded(np.arange(1, 7), "hours since 2020-06-01", axis="T").rename(time="XTIME").to_netcdf(folder / "a.nc")


@case("time", "a forecast by `init_time` and `lead_time` in whole hours", "unrolled to valid times")
def _(folder):
    data = dataset(units="mm").rename(time="lead_time")
    data = data.assign_coords(lead_time=("lead_time", np.arange(1, 7), {"units": "hours"}))
    data.expand_dims(init_time=[np.datetime64("2020-06-01", "ns")]).to_netcdf(folder / "a.nc")


@case("time", "a forecast whose lead times have no units", "refused", refused="lead times")
def _(folder):
    data = dataset(units="mm").rename(time="step").assign_coords(step=np.arange(1.0, 7.0))
    data.assign_coords(time=np.datetime64("2020-06-01", "ns")).to_netcdf(folder / "a.nc")


for _unit, _seconds in (("days since 1900-01-01", 86400), ("seconds since 1970-01-01", 1)):

    @case("time", f"float32 {_unit}, hourly or daily, minutes off", "rounded to the hour that all are nearest to, said",
          expected=RAIN / (24 if _seconds > 1 else 1))  # fmt: skip
    def _(folder, unit=_unit, seconds=_seconds):
        time = HOURS[0] + np.arange(6) * np.timedelta64(24 if seconds > 1 else 1, "h")
        since = (time - np.datetime64(unit[-10:])) / np.timedelta64(1, "s") / seconds
        data = _coded(since.astype("f4"), unit)
        data["precipitation"].attrs["units"] = "mm"
        data.to_netcdf(folder / "a.nc")


@case("time", "units with the day first, hours since 01-06-2020", "refused", refused="ambiguous")
def _(folder):
    _coded(np.arange(1, 7), "hours since 01-06-2020").to_netcdf(folder / "a.nc")


@case("time", "units in a zone by its name, CET", "refused: write its offset", refused="expected UTC")
def _(folder):
    _coded(np.arange(1, 7), "hours since 2020-06-01 00:00:00 CET").to_netcdf(folder / "a.nc")


JITTER = HOURS + np.array([0, 20, -15, 10, 5, -20]) * np.timedelta64(1, "s")


@case("time", "scans up to 20 s off the hour", "refused: set `data.step_minutes`", refused=r"data\.step_minutes=60")
def _(folder):
    dataset(time=JITTER).to_netcdf(folder / "a.nc")


@case("time", "scans up to 20 s off the hour, with `data.step_minutes=60`", "moved onto it, said", step_minutes=60)
def _(folder):
    dataset(time=JITTER).to_netcdf(folder / "a.nc")


@case("time", "a time twice with the same values", "once, said")
def _(folder):
    dataset().isel(time=[0, 1, 2, 2, 3, 4, 5]).to_netcdf(folder / "a.nc")


for _lead, _how, _refused in (
    (1, "by their valid times", None),
    (3, "refused: set `data.step_minutes`", "forecasts of 3 h"),
):

    @case("time", f"amounts of hourly runs at one `step` of {_lead} h", _how, refused=_refused)
    def _(folder, lead=_lead):
        step = np.timedelta64(lead, "h")
        dataset(units="mm", time=HOURS - step).assign_coords(step=step.astype("m8[ns]")).to_netcdf(folder / "a.nc")


@case("time", "amounts of hourly runs at one `step` of 3 h, with `data.step_minutes=60`", "by their valid times",
      step_minutes=60)  # fmt: skip
def _(folder):
    step = np.timedelta64(3, "h")
    dataset(units="mm", time=HOURS - step).assign_coords(step=step.astype("m8[ns]")).to_netcdf(folder / "a.nc")
