"""Functions of the commands of `rainshift`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from geoml.runs.folder import RunFolder
    from rainshift.data.archive import Archive
    from rainshift.data.observations import Readings
    from rainshift.models.spec import Downscaler
    from rainshift.trained import Trained

__all__ = ["benchmark", "evaluate", "predict", "prepare", "regions", "report", "train", "trust"]

Rows = list[dict[str, Any]]


def regions(arguments: Sequence[str]) -> Rows | None:
    """List the regions: a table of their bounds, or with `--json` all of their properties."""
    parser = argparse.ArgumentParser(prog="rainshift regions", description="List the regions and their bounds.")
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead of a table")
    flags = parser.parse_args(arguments)
    from rainshift.api import regions as all_regions

    rows = all_regions()
    if flags.json:
        print(json.dumps(list(rows), indent=2))
        return None
    shown = ("name", "lat_min", "lat_max", "lon_min", "lon_max", "title")
    return [{key: row[key] for key in shown} | {"shares an edge with": ", ".join(row["adjacent"])} for row in rows]


def prepare(config: DictConfig, run: RunFolder) -> Rows:
    """Prepare the stores of regions and splits."""
    from geoml.data.location import sizes

    archive = _archive(config)
    rows = []
    wanted = [(name, split) for name in config.regions or archive.names for split in config.splits or archive.splits]
    for name, split in wanted:
        path = archive.prepare(name, split)
        size = sum(sizes(path).values())
        hours = archive.open(name, split)["target"].sizes["time"]
        row = {"region": name, "split": split, "times": int(hours), "MB": round(size / 1e6, 2), "store": str(path)}
        run.metrics.append(row)
        rows.append(row)
    return rows


def train(config: DictConfig, run: RunFolder) -> Rows:
    """Train one model on one or several regions. Checkpoints are saved in the run folder.

    `torchrun --nproc-per-node 2 -m rainshift train …` trains with two processes, with the same result.
    """
    from rainshift.training import train_run

    return [train_run(config, run)]


def trust(config: DictConfig, run: RunFolder) -> Rows:
    """Fit the trust map of a trained model to validation hours of its training regions.

    The trust map is saved next to the model's checkpoints; `predict` then adds it to each prediction.
    """
    from geoml.runs.folder import RunFolder
    from rainshift.models.trust import fit_trust
    from rainshift.training import load_trained

    trained = RunFolder.load(config.checkpoint)
    archive, regions = _archive(config), list(config.regions or trained.config.get("train_regions") or ())
    if not regions:
        raise UserError(f"the training regions of {config.checkpoint} are unknown; set regions=[NAME, …]")
    for name in regions:
        archive.prepare(name, _split(archive, "validation"))
    options: dict[str, Any] = {"members": int(config.members), "hours": int(config.hours), "level": float(config.level)}
    downscaler = load_trained(trained.path, allow=config.allow_targets)
    learnt = fit_trust(downscaler, archive, regions, seed=int(config.seed), **options)
    learnt.save(trained.checkpoints)
    row = {
        "regions": "+".join(regions),
        "bound": f"{learnt.factor:.3g} times the expected error, for {learnt.level:.0%} of the errors",
        "familiar": f"up to a novelty of {learnt.limit:.3g}",
        "kept": str(trained.checkpoints),
    }
    run.write_summary(row)
    return [row]


def predict(config: DictConfig, run: RunFolder) -> Rows:
    """Predict coarse fields of a file, or prepared regions, with a trained or general model. Writes CF files."""
    from omegaconf import OmegaConf

    config = OmegaConf.merge(config, {"checkpoint": _checkpoint(config)})  # type: ignore[assignment]
    if config.input is not None:
        return [_predict_file(config, run)]
    if alone := [key for key in ("output", "static", "coarse") if config[key] is not None]:
        raise UserError(
            f"{alone[0]}= is an option of input=FILE, which is not set; prepared regions are written to the run folder"
        )
    from rainshift.prediction import write_prediction
    from rainshift.report import example_maps as showcase

    archive, trained = _archive(config), _trained(config)
    names = _named(config, archive)
    downscaler, learnt, seen = _ready(config, archive, trained, names), trained.trust, _readings(config)
    if seen is not None:
        trained.require_guidable()
    rows = []
    for name in names:
        archive.prepare(name, split := _split(archive, config.role))
        trained.check(archive, name, split)
        path = run.samples / f"{name}-{config.role}.nc"
        attrs = {"title": f"Downscaled precipitation: {name}", "source": f"checkpoint {config.checkpoint}"}
        rows.append(
            write_prediction(
                path,
                downscaler,
                archive,
                name,
                role=config.role,
                samples=config.samples,
                members=int(config.members),
                seed=int(config.seed),
                attrs=attrs,
                trust=learnt,
                observations=seen,
            )
        )
        showcase.write(run.path, showcase.of_file(path, archive, name, str(config.role)))
    return rows


def _predict_file(config: DictConfig, run: RunFolder) -> dict[str, Any]:
    """Predict the coarse fields of `input` and write `output`; finished blocks are reused."""
    from geoml.data.store import read_dataset
    from geoml.runs.folder import plain
    from rainshift.data.coarse_files import coarse_files, open_coarse
    from rainshift.models.general import weights_of
    from rainshift.prediction import fingerprint, write_fields
    from rainshift.report import example_maps as showcase
    from rainshift.sources.fetching import local_copy

    source = local_copy(str(config.input))
    output = Path(config.output) if config.output else run.samples / f"{source.stem}.nc"
    if output.suffix != ".nc":
        raise UserError(f"output={output}; expected the path of a NetCDF file with suffix .nc")
    trained = _trained(config)
    shipped = weights_of(str(config.checkpoint))
    identity = fingerprint(
        *coarse_files(source),
        *(Path(path) for path in (config.static, shipped or config.checkpoint) if path),
        *([] if config.observations is None else [local_copy(str(config.observations))]),
    )
    if run.finished and output.exists() and run.summary.get("identity") == identity:
        return dict(run.summary["rows"][0])
    with open_coarse(source, trained.channels.condition, trained.predictors) as data:
        static = read_dataset(config.static) if config.static else None
        fine_rain, fields = trained.prepared(
            data,
            members=int(config.members),
            seed=int(config.seed),
            static=static,
            conservation=config.conservation,
            tiles=plain(config.tiles),
            observations=_readings(config),
            coarse=config.coarse,
        )
        attrs = {**trained.attrs, "history": f"predicted from {source.name} by rainshift predict"}
        row = {"input": str(source)} | write_fields(
            output, fine_rain, fields, parts=run.path / "parts", identity=identity, attrs=attrs
        )
        shown = showcase.of_coarse(output, fields, source.stem)
    if shown is not None:
        showcase.write(run.path, shown)
    run.write_summary({"rows": [row], "identity": identity})
    return row


def _named(config: DictConfig, archive: Archive) -> list[str]:
    """Return the regions of a command. Raises `UserError` if there are none."""
    if not config.regions:
        raise UserError("regions is []; expected at least one region, such as regions=[melanesia]")
    return list(archive.among(config.regions))


def evaluate(config: DictConfig, run: RunFolder) -> Rows:
    """Score a trained model or a prediction file on regions, and compute its skill against the reference."""
    from geoml.metrics import Suite
    from geoml.runs.folder import plain
    from rainshift.data.selection import choose
    from rainshift.data.settings import require_untrained, trained_share
    from rainshift.evaluation import score, score_file
    from rainshift.models.spec import ModelSpec
    from rainshift.report import example_maps as showcase
    from rainshift.report.stations import at_stations
    from rainshift.training import load

    if (config.checkpoint is None) == (config.prediction is None):
        raise UserError("evaluate takes either checkpoint=RUN or prediction=FILE")
    archive, suite = _archive(config), Suite.from_config(plain(config.metrics))
    compared = ModelSpec.of(config.reference)
    if compared.learns:
        raise UserError(f"reference={compared.name} is a trained model; use a model without training, such as bilinear")
    reference = load(compared, None, archive.channels)
    trained = None if config.checkpoint is None else _trained(config)
    rows = []
    if config.on_trained not in ("refuse", "mark"):
        raise UserError(f"on_trained is {config.on_trained!r}; expected refuse or mark")
    for name in _named(config, archive):
        archive.prepare(name, _split(archive, config.role))
        seen = 0.0
        options: dict[str, Any] = {"suite": suite, "role": str(config.role), "stations": archive.stations}
        if trained is None:
            made = score_file(Path(config.prediction), archive, name, **options)
            times = made.table.ids
            against = score(reference, archive, name, times=times, **options)
            shown = showcase.of_file(Path(config.prediction), archive, name, str(config.role))
        else:
            drawn: dict[str, Any] = {
                "members": int(config.members),
                "samples": config.samples,
                "seed": int(config.seed),
            }
            trained.check(archive, name, _split(archive, config.role))
            seen = trained_share(
                Path(config.checkpoint), archive, name, str(config.role),
                choose(archive, name, str(config.role), config.samples),
            )  # fmt: skip
            require_untrained(seen, name, str(config.role), config.on_trained == "mark")
            downscaler, learnt = _ready(config, archive, trained, [name]), trained.trust
            made = score(downscaler, archive, name, **drawn, **options)
            against = score(reference, archive, name, **drawn, **options)
            shown = showcase.of_model(downscaler, archive, name, str(config.role), **drawn, trust=learnt)
        values = suite.evaluate(made.table)
        skill = suite.skill(made.table, against.table) if "crps_fair" in suite.metrics else None
        made.save(run.path / f"scores-{name}.nc")
        showcase.write(run.path, shown)
        head = {"region": name, "times": len(made.table), "members": made.members}
        if seen:
            head["trained on, %"] = round(100 * seen, 1)
        at_gauges = at_stations(archive, name, str(config.role), made.points, against.points)
        gauges = at_gauges.write(run.path, name) if at_gauges is not None else {}
        rows.append(head | values | {"skill": skill, "clipped_share": made.clipped_share} | gauges)
        run.metrics.append(rows[-1])
    return rows


def benchmark(config: DictConfig, run: RunFolder) -> Rows:
    """Train and score all cells of the benchmark; write `benchmark.nc`, the report and the summary."""
    from rainshift.benchmarking.run import Experiment
    from rainshift.report.results import write_benchmark

    experiment = Experiment(config)
    return write_benchmark(experiment, experiment.run(), run)


def report(arguments: Sequence[str]) -> Rows:
    """Write one page about finished runs, in HTML or Markdown.

    Only files of the run folders are read; nothing is trained or scored.
    """
    from geoml.report.gather import parser, written

    about = "Write one page of finished runs of benchmark, predict and evaluate: self-contained HTML, or Markdown."
    flags = parser("rainshift report", about).parse_args(arguments)
    from rainshift.report import html

    return written(flags, {"rainshift": html.report})


def _archive(config: DictConfig) -> Archive:
    from geoml.runs.folder import plain
    from rainshift.data.archive import archive_of
    from rainshift.data.settings import data_settings

    return archive_of({**plain(config), "data": data_settings(config)})


def _split(archive: Archive, role: str) -> str:
    """Return the split whose store contains the samples of a role."""
    return role if role in archive.splits else archive.splits[0]


def _checkpoint(config: DictConfig) -> str:
    """Return the checkpoint of a command, or the name of the general model in `model`."""
    from geoml.runs.folder import plain
    from rainshift.models.spec import ModelSpec

    chosen = config.get("model")
    if (config.checkpoint is None) == (chosen is None):
        raise UserError("predict requires either checkpoint=RUN of a training, or model=general with shipped weights")
    if chosen is None:
        return str(config.checkpoint)
    if (name := ModelSpec.of(plain(chosen)).shipped) is None:
        raise UserError("this model has no shipped weights; use model=general or general-regression, or checkpoint=RUN")
    return name


def _trained(config: DictConfig) -> Trained:
    """Load the model of a run folder or checkpoint folder."""
    from rainshift.trained import load_model

    return load_model(Path(config.checkpoint), precision=config.precision, allow=config.allow_targets)


def _readings(config: DictConfig) -> Readings | None:
    """Read the stations that guide the members."""
    from geoml.runs.folder import plain
    from rainshift.data.observations import readings_of

    return readings_of(config.observations, plain(config.observation_error))


def _ready(config: DictConfig, archive: Archive, trained: Trained, names: Sequence[str]) -> Downscaler:
    """Return the downscaler in tiles, with the configured conservation layer."""
    from geoml.runs.folder import plain
    from rainshift.data.exactness import exact_means

    exact = exact_means(archive, names)
    return trained.seeing(archive.channels, exact=exact).ready(
        tiles=plain(config.tiles), conservation=config.conservation, exact=exact
    )
