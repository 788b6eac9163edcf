"""Run a verb: flags, configuration, run folder, a single job or a sweep."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from geoml.cli import compose
from geoml.cli.definitions import App, Verb, load_function
from geoml.cli.tables import Rows, show
from geoml.errors import UserError, missing_packages
from geoml.runs.folder import RunFolder, config_hash, launched_rank
from geoml.runs.log_file import LogFile
from geoml.runs.threads import limit_threads

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["JobResult", "complete", "run", "run_job", "run_path"]

#: Packages whose log messages are shown at the terminal; others show warnings only.
OURS = ("geoml", "rainshift", "radiomaps", "mcp_experts")


#: Environment of Dask workers: one thread each. The MALLOC values keep freed memory in the process; with the defaults
#: of Dask a third of the time of synthesising weather is spent on returning it to the system and requesting it again.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "NUMBA_NUM_THREADS": 1,
    "MALLOC_TRIM_THRESHOLD_": 2**28,
    "MALLOC_MMAP_THRESHOLD_": 2**25,
}


class _Flags(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; settings are written KEY=VALUE, flags are -m, --cfg, --config-dir, --help")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _Flags(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", action="store_true")
    parser.add_argument("-cd", "--config-dir", action="append", default=[])
    return parser.parse_intermixed_args(arguments)


def run(app: App, verb: Verb, arguments: list[str]) -> int:
    """Run `verb` with its arguments; returns the exit code."""
    flags = _parse(arguments)
    source = compose.loader(app.config_module, config_dirs=flags.config_dir)
    if flags.help:
        from geoml.cli.verb_help import verb_help

        print(verb_help(app, verb, source, flags.overrides))
        return 0
    if flags.multirun:
        return _sweep(app, verb, source, flags.overrides)
    config = compose.load(source, verb.name, flags.overrides)
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(config)
    config = compose.finish(config.copy())
    if flags.cfg:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(config), end="")
        return 0
    show(_Job(app, verb).run(config, flags.overrides) or [])
    return 0


def run_job(app: App, verb: Verb, config: DictConfig, overrides: Sequence[str]) -> Rows | None:
    """Run a verb once on a configuration, in its run folder if it has one; returns the rows of its table."""
    return _Job(app, verb).run(config, overrides)


def run_path(verb: str, config: DictConfig, overrides: Sequence[str], *, sweep: bool = False) -> Path:
    """The folder of a run of `verb`: `run.dir`, or `runs/VERB/` and a name from the overrides and a hash.

    The same command gives the same folder, so that it resumes. In a sweep `run.dir` is the parent folder and
    `run.name` the prefix of the folders of all jobs.
    """
    run = config.run
    digest = config_hash(config, ignore=("run", *run.ignore))[:8]
    words = [] if run.name is None else [str(run.name)]
    if run.name is None:
        for override in sorted(overrides):
            key, _, value = override.lstrip("+~").partition("=")
            if key.partition(".")[0] not in ("run", "hydra"):
                words.append(f"{key.rpartition('.')[2]}_{Path(value).name}" if "." in key else Path(value).name)
    slug = re.sub(r"[^\w.+-]+", "_", "-".join(words)).strip("_.-")[:60]
    name = slug if run.name is not None and not sweep else "-".join(filter(None, (slug, digest)))
    if run.dir is not None:
        return Path(run.dir) / name if sweep else Path(run.dir)
    return Path("runs") / verb / name


@dataclass(frozen=True)
class JobResult:
    """The result of one job of a sweep: rows, or an error message."""

    rows: list[dict[str, Any]]
    error: str = ""
    mendable: bool = True


@dataclass(frozen=True)
class _Job:
    """A verb that can be run on a configuration; sent to the workers of a launcher."""

    app: App
    verb: Verb

    def __call__(self, config: DictConfig) -> JobResult:
        """Run one job of a sweep; an error does not stop the other jobs."""
        from hydra.core.hydra_config import HydraConfig

        try:
            overrides = list(HydraConfig.get().overrides.task)
            rows = self.run(compose.finish(config), overrides, sweep=True)
            return JobResult([dict(row) for row in rows or []])
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return JobResult([], str(error))
        except Exception as error:
            traceback.print_exc()
            return JobResult([], f"{type(error).__name__}: {error}", mendable=False)

    def run(self, config: DictConfig, overrides: Sequence[str], *, sweep: bool = False) -> Rows | None:
        """Run the verb, in a run folder if it has one, and return its rows."""
        threads = limit_threads() if self.verb.run_folder else None  # before numerical libraries are imported
        function = load_function(self.verb.function, extra=self.app.extra)
        with missing_packages(self.app.extra):
            if not self.verb.run_folder:
                rows: Rows | None = function(config)
                return rows
            path = run_path(self.verb.name, config, overrides, sweep=sweep)
            ignore = ("run", *config.run.ignore)
            if launched_rank():  # only the first process prints, logs and writes
                function(config, RunFolder.open(path, config))
                return None
            with RunFolder.open(path, config, resume=not config.run.fresh, ignore=ignore) as folder, _logging(folder):
                logging.getLogger(__name__).info("run folder: %s", path)
                if threads is not None and threads[0] < threads[1]:
                    logging.getLogger(__name__).info(
                        "threads: %d, since %d of %d cores are busy; OMP_NUM_THREADS=N sets another number",
                        threads[0], threads[1] - threads[0], threads[1],
                    )  # fmt: skip
                with dask_workers(config.get("dask")):
                    rows = function(config, folder)
                if not folder.summarised:
                    folder.write_summary({"rows": rows or []})
                return rows


def _sweep(app: App, verb: Verb, source: Any, overrides: list[str]) -> int:
    """Run all combinations of comma-separated values with Hydra's sweeper and launcher; prints one table."""
    from hydra.core.global_hydra import GlobalHydra

    from geoml.cli.hydra_private import Hydra

    GlobalHydra.instance().clear()
    hydra = Hydra(task_name=f"{app.name}-{verb.name}", config_loader=source)
    GlobalHydra.instance().initialize(hydra)
    overrides = compose.with_own_file(source, overrides)
    try:
        with compose.user_errors(source, verb.name, overrides):
            words = compose.with_own_model(overrides)
            batches = hydra.multirun(config_name=verb.name, task_function=_Job(app, verb), overrides=words)
    finally:
        GlobalHydra.instance().clear()
    jobs = [(dict(_pair(line) for line in job.overrides), job.return_value) for batch in batches or [] for job in batch]
    swept = [key for key in dict.fromkeys(key for given, _ in jobs for key in given) if _varies(key, jobs)]
    table: list[dict[str, Any]] = []
    for given, outcome in jobs:
        head = {key: given.get(key) for key in swept}
        rows = outcome.rows or ([{"error": outcome.error}] if outcome.error else [])
        table += [head | row for row in rows]
    show(table)
    failed = [outcome for _, outcome in jobs if outcome.error]
    if not failed:
        return 0
    print(f"error: {len(failed)} of {len(jobs)} jobs failed; the same command runs them again", file=sys.stderr)
    return 2 if all(outcome.mendable for outcome in failed) else 1


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


def _varies(key: str, jobs: list[tuple[dict[str, str], JobResult]]) -> bool:
    return len({given.get(key) for given, _ in jobs}) > 1


@contextmanager
def dask_workers(asked: str | int | None) -> Iterator[None]:
    """Start the Dask client of the setting `dask`: `local`, a number of processes, or the address of a scheduler."""
    if asked is None:
        yield
        return
    import dask.config
    from distributed import Client, LocalCluster

    from geoml.runs.environment import usable_cores

    text = str(asked)
    if text != "local" and not text.isdigit() and "://" not in text:
        raise UserError(f"dask={text}; expected local, a number of workers, or an address such as tcp://host:8786")
    with ExitStack() as stack:
        if "://" in text:
            try:
                stack.enter_context(Client(text, timeout="10s"))
            except OSError as error:
                raise UserError(
                    f"no Dask scheduler answers at {text} ({error}); start one, or use dask=local"
                ) from error
        else:
            count = usable_cores() if text == "local" else max(1, int(text))
            options = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None}
            stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}))
            stack.enter_context(Client(stack.enter_context(LocalCluster(**options))))
        yield


@contextmanager
def _logging(folder: RunFolder) -> Iterator[None]:
    """Log to `log.txt` and, without time stamps, to standard error while the verb runs."""
    root = logging.getLogger()
    to_file = LogFile(folder.path / "log.txt")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_terminal = logging.StreamHandler()
    to_terminal.setFormatter(logging.Formatter("%(message)s"))
    # asyncio tells of every other write that failed with the one whose error is shown.
    to_terminal.addFilter(
        lambda record: (
            record.name.partition(".")[0] in OURS or (record.levelno >= logging.WARNING and record.name != "asyncio")
        )
    )
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(to_file)
    root.addHandler(to_terminal)
    logging.captureWarnings(True)
    try:
        yield
    except BaseException as error:
        stopped = logging.LogRecord("geoml", logging.ERROR, __file__, 0, "stopped", (), _trace(error))
        to_file.emit(stopped)
        raise
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        for handler in (to_file, to_terminal):
            root.removeHandler(handler)
            handler.close()


def _trace(error: BaseException) -> Any:
    return type(error), error, error.__traceback__


def complete(app: App, verb: Verb | None, arguments: list[str]) -> None:
    """Complete with Hydra's plug-in for the shell; the verb is already removed from COMP_LINE."""
    from geoml.cli.hydra_private import Hydra

    hydra = Hydra(task_name=app.name, config_loader=compose.loader(app.config_module))
    try:
        hydra.shell_completion(config_name=verb.name if verb else None, overrides=arguments)
    except ValueError as error:
        raise UserError(f"-sc takes install=SHELL, uninstall=SHELL or query=SHELL ({error})") from error
