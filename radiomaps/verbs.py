"""The subcommands of `radiomaps`."""

from __future__ import annotations

import argparse
import functools
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.cli.tables import show
from geoml.errors import UserError, unknown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from geoml.runs.folder import RunFolder

__all__ = ["benchmark", "coverage", "evaluate", "export_maps", "import_maps", "paths",
           "predict", "report", "scenes", "trace", "train"]  # fmt: skip

Rows = list[dict[str, Any]]
#: Number of maps on which a network's flip error is measured.
MIRRORED = 4


def scenes(arguments: Sequence[str]) -> Rows | int:
    """List the scenes that need no file, measure the given ones, or with `scene=` report on one scene.

    `--draw FOLDER` draws a plan of each; the report on one scene includes its plan.
    """
    parser = argparse.ArgumentParser(prog="radiomaps scenes", description="List scenes, report on one, draw them.")
    words = (
        "names or files to measure (default: list all that need no file); scene=NAME or scene=FILE reports on one; "
        "KEY=VALUE or scene.KEY=VALUE sets options of the reader, such as default_height_m=9"
    )
    parser.add_argument("scene", nargs="*", help=words)
    parser.add_argument("--draw", metavar="FOLDER", help="draw a plan of each into this folder")
    parser.add_argument("--save", metavar="FOLDER", help="write each as XML and PLY meshes into this folder")
    flags = parser.parse_args(arguments)
    from radiomaps.generation import known_scenes

    if not arguments:
        show([{"scene": name, "kind": known_scenes.GENERATED.get(name, "meshes of Sionna RT"),
               "licence": known_scenes.licence_of(name)} for name in known_scenes.names()])  # fmt: skip
        print("\nradiomaps scenes NAME … measures these: size, buildings, heights, triangles.")
        return 0
    from geoml.report.drawing import save_viewer
    from radiomaps.report.figures import scene_viewer
    from radiomaps.scenes import load, names, save_scene
    from radiomaps.scenes.load import parse_options

    settings = parse_options(word for word in flags.scene if "=" in word)
    named = [word for word in flags.scene if "=" not in word]
    one = settings.pop("scene", None)
    if one == "file" or (one is None and not named):
        one = settings.pop("path", None)
    if one is not None and named:
        raise UserError(
            f"scene={one} reports on one scene, but {' '.join(named)} was also given; run the command once per scene"
        )
    draw = flags.draw or ("runs/scenes" if one is not None else None)
    rows = []
    for name in [str(one)] if one is not None else named or names():
        scene = load({"path": name, **settings} if settings else name)
        about = scene.report
        row: dict[str, Any] = {
            "scene": scene.name,
            **{f"{axis}_m": f"{low:.0f} … {high:.0f}" for axis, low, high in zip("xyz", *about.extent_m, strict=True)},
            "buildings": about.buildings,
            "area_m2": round(about.covered_m2),
            "median_height_m": round(about.heights_m[1], 1) if about.heights_m else None,
            "triangles": about.triangles,
            "hash": about.hash[:8],
            "licence": scene.licence,
        }
        if scene.repairs:
            row["repairs"] = "; ".join(scene.repairs)
        if draw:
            row["picture"] = str(Path(draw) / f"{scene.name}.png")
            title = f"{scene.name}: {len(scene.buildings)} buildings, {scene.triangles} triangles"
            save_viewer(scene_viewer(scene), row["picture"], title=title)
        if flags.save:
            row["files"] = str(save_scene(scene, Path(flags.save) / scene.name).parent)
        if one is not None:
            print("\n".join([str(about), *(f"{key}: {row[key]}" for key in ("picture", "files") if key in row)]))
            return 0
        rows.append(row)
    return rows


def trace(config: DictConfig, run: RunFolder) -> Rows:
    """Trace the maps of all transmitters in all scenes into one store, and draw some of them."""
    from geoml.runs.folder import plain
    from radiomaps.generation.generate import generate
    from radiomaps.generation.plan import Placement, Plan, Window, furnished

    values = plain(config)
    plan = Plan(
        furnished(values["scenes"] or [values["scene"]], values["materials"]),
        Placement(**values["transmitters"]),
        Window(**values["window"]),
        values["solver"]["name"],
        values["solver"]["options"],
        tuple(values["variables"]),
        int(values["seed"]),
        bool(values["fill_shadows"]),
        tuple(values["frequencies_hz"] or ()),
        tuple(values["carriers_hz"] or ()),
    )
    if "://" in str(values["store"]):
        raise UserError(f"store={values['store']} is a URL; expected the path of a local folder")
    path = Path(values["store"] or run.path / "maps.zarr")
    command = shlex.join(["radiomaps", "trace", f"run.dir={run.path}"])
    generate(plan, path, prepare_command=command)
    return _pictures(path, run.samples, int(values["pictures"]))


def coverage(config: DictConfig, run: RunFolder) -> Rows:
    """Compute coverage of the cells of a store, or of a sites file over its paths; returns one row per height."""
    from geoml.runs.folder import plain
    from radiomaps.report.coverage import cover

    return cover(plain(config), run)


def paths(config: DictConfig, run: RunFolder) -> Rows:
    """Find exact paths to receivers and write them as a table; returns one row per transmitter."""
    from geoml.runs.folder import plain
    from radiomaps.generation.plan import Placement, Window, furnished
    from radiomaps.generation.receivers import Receivers
    from radiomaps.maps.path_files import require_suffix, write_paths
    from radiomaps.raytrace import TraceOptions, find_paths
    from radiomaps.scenes import load

    values = plain(config)
    file = Path(values["file"] or run.path / "paths.npz")
    require_suffix(file)
    for name in ("rays", "top"):
        if int(values[name]) < 1:
            raise UserError(f"{name}={values[name]}; expected a whole number, 1 or more")
    scene, seed = load(furnished([values["scene"]], values["materials"])[0]), int(values["seed"])
    grid = Window(**values["window"]).grid(scene)
    transmitters = Placement(**values["transmitters"]).transmitters(scene, grid, (seed, 0))
    motion = Receivers(**values["receivers"]).motion(scene, grid, seed)
    # The estimator is one of maps; "paths", their default, excludes refraction, which path tables can have.
    options = TraceOptions(**values["options"], estimator="axis", seed=seed)
    table = find_paths(
        scene, transmitters, motion.position_m, options, rays=int(values["rays"]),
        top=int(values["top"]), velocities=motion.velocity_m_s,
    )  # fmt: skip
    table = table.assign_coords(time_s=("rx", motion.time_s, {"units": "s", "long_name": "time of the receiver"}))
    write_paths(file, table)
    direct = (table["bounces"] == 0) & table["delay_s"].notnull()
    return [
        {
            "transmitter": str(table["tx"].values[index]),
            "receivers": table.sizes["rx"],
            "los_%": round(100 * float(direct[index].any("path").mean()), 1),
            "no_path_%": round(100 * float((table["path_count"][index] == 0).mean()), 1),
            "paths_median": float(table["path_count"][index].median()),
            "file": str(file),
        }
        for index in range(table.sizes["tx"])
    ]


def report(arguments: Sequence[str]) -> Rows:
    """Write a page about stores and finished runs, optionally with the differences from another store."""
    from geoml.report.gather import parser, written

    about = "Write one page about stores, and runs of trace, predict and benchmark: self-contained HTML, or Markdown."
    made = parser("radiomaps report", about)
    made.add_argument("--against", metavar="STORE", help="a store of the same scenes and transmitters: errors too")
    flags = made.parse_args(arguments)
    from radiomaps.report import html

    against = Path(flags.against) if flags.against else None
    return written(flags, {"radiomaps": functools.partial(html.report, against=against)})


def import_maps(config: DictConfig) -> Rows:
    """Import another data set into a store; returns one row per variable with its share of saturated values."""
    from radiomaps import exchange

    ranges = tuple(map(float, config.path_gain_range_db)) if config.path_gain_range_db else None
    if config.format == "urbanradio3d":
        options: dict[str, Any] = {"path_gain_range_db": ranges, "transmitter_height_m": config.transmitter_height_m}
        reader: Any = exchange.import_urbanradio3d
    elif config.format == "radiomapseer":
        options = {"range_db": ranges, "model": config.model, "height_m": config.transmitter_height_m}
        reader = exchange.import_radiomapseer
    elif config.format == "deepmimo":
        return list(exchange.import_deepmimo(config.source, config.store))
    else:
        raise unknown("format", config.format, ("urbanradio3d", "radiomapseer", "deepmimo"))
    given = {name: value for name, value in options.items() if value is not None}
    return list(reader(config.source, config.store, licence=config.licence, **given))


def export_maps(config: DictConfig) -> Rows:
    """Write a store of maps, or a table of paths, in another layout."""
    from radiomaps import exchange

    if config.format == "deepmimo":
        from radiomaps.maps.path_files import read_paths

        return list(exchange.export_deepmimo(read_paths(config.store), config.target))
    if config.format == "urbanradio3d":
        bounds = None
        if config.path_gain_range_db is not None:
            if len(ends := list(config.path_gain_range_db)) != 2:
                raise UserError(f"path_gain_range_db={ends}; expected the lowest and the highest, as [-129, -52]")
            bounds = (float(ends[0]), float(ends[1]))
        return list(exchange.export_urbanradio3d(config.store, config.target, path_gain_range_db=bounds))
    writers: dict[str, Any] = {"geotiff": exchange.export_geotiff, "netcdf": exchange.export_netcdf}
    if config.format not in writers:
        raise unknown("format", config.format, ("urbanradio3d", "deepmimo", *writers))
    return list(writers[config.format](config.store, config.target))


def train(config: DictConfig, run: RunFolder) -> Rows:
    """Train one model on the maps of a store; the run folder contains its checkpoints and figures.

    `torchrun --nproc-per-node 2 -m radiomaps train …` trains with two processes and gives the same weights.
    """
    from geoml.cli.config import instantiate
    from geoml.models.registry import kind_of
    from geoml.runs.files import write_json
    from geoml.runs.folder import launched_rank, plain
    from geoml.train.tensorboard import log_of
    from radiomaps.maps.store import MapStore
    from radiomaps.report.pictures import picture_taker
    from radiomaps.tasks import Task
    from radiomaps.tasks.splits import on_layers, parts_of
    from radiomaps.trained import SPLIT_FILE
    from radiomaps.training import Recipe, fit

    values = plain(config)
    task, store = on_layers(Task.of(values["task"]), values["split"], "train"), MapStore.open(values["store"])
    parts = parts_of(store, values["split"])
    recipe = Recipe(instantiate(config["trainer"]), **values["loader"])
    if run.finished:
        return [run.summary]
    chosen = list(parts.get("validation", ()))[: int(values["pictures"])]
    if not launched_rank():
        write_json(run.checkpoints / SPLIT_FILE, values["split"])
    watch = picture_taker(task, store, chosen, run.samples, members=int(values["members"])) if chosen else None
    summary = fit(
        values["model"], task, store, parts, recipe=recipe, folder=run.checkpoints, seed=int(values["seed"]),
        log=log_of(run, tensorboard=bool(config.run.tensorboard)), watch=watch, allow=values["allow_targets"],
        start=Path(values["start"]) if values["start"] else None,
    )  # fmt: skip
    row = {"model": kind_of(values["model"]), **summary, "run": str(run.path)}
    run.write_summary(row)
    return [row]


def predict(config: DictConfig, run: RunFolder) -> Rows:
    """Predict maps with a trained model into CF files in the run folder's `samples/`, and draw some."""
    from geoml.models.tiles import Tiling
    from geoml.runs.folder import plain
    from radiomaps.maps.store import MapStore
    from radiomaps.prediction import (
        chosen_maps,
        predicted_maps,
        predicted_scene,
        window_of,
        with_truth,
        write_predictions,
    )
    from radiomaps.report.pictures import draw_predictions
    from radiomaps.tasks.splits import on_layers
    from radiomaps.trained import load_trained

    values = plain(config)
    trained = load_trained(
        values["checkpoint"], device=values["device"], precision=values["precision"], tiling=Tiling(**values["tiles"]),
        allow=values["allow_targets"],
    )  # fmt: skip
    trained = trained.sampled_by(**{name: values[name] for name in ("steps", "sampler", "guidance", "keep")})
    options: dict[str, Any] = {"members": int(values["members"]), "seed": int(values["seed"])}
    store = None if values["store"] is None else MapStore.open(values["store"])
    if store is None:
        from radiomaps.generation.plan import Placement
        from radiomaps.scenes import load

        if trained.task.observations is not None:
            raise UserError("this model reads observed voxels; name a store of measured or traced maps: store=MAPS")
        scene = load(values["scene"])
        grid = window_of(trained, values["window"]).grid(scene)
        sites = Placement(**values["transmitters"]).transmitters(scene, grid, (options["seed"], 0))
        maps = predicted_scene(trained, scene, sites, grid, frequency_hz=float(values["frequency_hz"]), **options)
        count = len(sites)
    else:
        part = values["part"]
        chosen = chosen_maps(trained, store, part=part, samples=values["samples"], count=values["count"])
        if part is not None:
            trained = replace(trained, task=on_layers(trained.task, trained.split or {}, part))
        maps, count = with_truth(predicted_maps(trained, store, chosen, **options), trained.task, store), len(chosen)
    attrs = {"title": "Predicted radio maps", "source": f"checkpoint {values['checkpoint']}", "seed": values["seed"]}
    rows = []
    for row in write_predictions(run.samples, maps, total=count, kind=values["format"], attrs=attrs):
        rows.append(row)
        run.metrics.append(row)
    draw_predictions(rows[: int(values["pictures"])])
    return rows


def evaluate(config: DictConfig, run: RunFolder) -> Rows:
    """Score a checkpoint or a baseline on a part of a store: tables by target, group and layer, and pictures."""
    from geoml.cli.tables import show
    from geoml.runs.folder import plain
    from radiomaps.evaluation import builder_of, group_rows, mirror_rows, physical_rows, published_rows
    from radiomaps.maps.store import MapStore
    from radiomaps.report.pictures import draw
    from radiomaps.scores import score
    from radiomaps.tasks.splits import parts_of, some_of

    values = plain(config)
    store = MapStore.open(values["store"])
    builder, split = builder_of(values, store)
    parts = parts_of(store, split)
    if values["part"] not in parts:
        raise unknown("part", values["part"], parts)
    chosen = some_of(parts[values["part"]], values["samples"])
    scores = score(
        builder, store, chosen, members=int(values["members"]), seed=int(values["seed"]),
        batch_size=int(values["batch_size"]),
    )  # fmt: skip
    scores.save(run.path / "scores.nc")
    show(published_rows(scores), title="0 … 1, as published: over all voxels, and averaged over maps")
    show(group_rows(scores), title="root-mean-square error by height and distance")
    if values["checkpoint"] is not None and (mirrored := mirror_rows(builder, store, chosen[:MIRRORED])):
        show(mirrored, title="0 … 1: prediction of a flipped scene minus the flipped prediction, all 7 flips and turns")
    draw(builder, store, chosen[: int(values["pictures"])], run.path / "samples", int(values["members"]))
    return physical_rows(scores)


def benchmark(config: DictConfig, run: RunFolder) -> Rows:
    """Train and score models on tasks of one store, and write the tables into the run folder."""
    from geoml.data.netcdf import write_netcdf
    from radiomaps.benchmarking.results import labelled
    from radiomaps.benchmarking.run import Benchmark
    from radiomaps.benchmarking.tables import score_rows, write_page

    made = Benchmark(config)
    outcome = made.run()
    write_page(made, outcome, run.path)
    write_netcdf(run.path / "results.nc", labelled(made, outcome), single=False)
    return score_rows(made, outcome)


def _pictures(path: Path, folder: Path, count: int) -> Rows:
    """One row of numbers per map for the first `count` maps, which are drawn."""
    from geoml.report.drawing import save_viewer
    from radiomaps.maps.store import file_names, in_scene, open_maps, scene_records
    from radiomaps.report import figures
    from radiomaps.report.html import numbers

    maps, records = open_maps(path), scene_records(path)
    total, rows = maps.sizes["scene"] * maps.sizes["tx"], []
    for index in range(min(count, total)):
        where = dict(zip(("scene", "tx"), divmod(index, maps.sizes["tx"]), strict=True))
        one = in_scene(maps.isel(where).load())
        cells = records[where["scene"]].cell_names(maps["frequency_hz"].values)
        name, file = (f"{one['scene'].item()}-{names[where['tx']]}" for names in (cells, file_names(cells)))
        drawn = {"": figures.map_viewer({name: one}, edge=figures.PRINTED), "-cut": figures.cut_viewer(one)}
        for suffix, viewer in drawn.items():
            save_viewer(viewer, folder / f"{file}{suffix}.png", title=f"{name}\n{figures.LEGEND}")
        rows.append({"map": name, **numbers(one), "pictures": str(folder)})
    return rows or [{"store": str(path), "maps": total}]
