"""Load a trained model: the downscaler, its channels, and the grids of its training."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid, grid_of
from geoml.models.base import Channels
from geoml.models.predictor import members_of, takes_points
from geoml.models.registry import kind_of
from geoml.models.tiles import Tiling
from geoml.runs.folder import RunFolder
from geoml.train.checkpoint import SUMS
from rainshift.baselines.base import Baseline, first_guesses
from rainshift.data.archive import Archive, archive_of
from rainshift.data.geometry import Geometry
from rainshift.data.inputs import CoarseFields, as_dataset, has_fields, static_fields
from rainshift.data.observations import MatchedReadings, Readings
from rainshift.models.fine_rain import FineRain
from rainshift.models.general import SEEN, WEIGHTS, General
from rainshift.models.spec import Downscaler, InTiles, ModelSpec, available, conserved
from rainshift.models.trust import Trust, found_beside
from rainshift.places.regions import grids, region
from rainshift.places.regions import regions as known_regions
from rainshift.training import BASELINE_FILE, load, load_trained

if TYPE_CHECKING:
    from geoml.train.device import Precision

__all__ = ["Trained", "load_model"]

logger = logging.getLogger(__name__)

#: Channels of an interpolation that is loaded by name.
RAIN_ALONE = Channels(("tp",), ("precipitation",), (), (("precipitation", "tp"),))


@dataclass(frozen=True)
class Trained:
    """A downscaler with its channels and `geometry`; the geometry is None if the grids of the training are unknown."""

    downscaler: Downscaler
    channels: Channels
    name: str
    path: Path | None = None
    geometry: Geometry | None = None
    #: Predictors with missing values in training.
    gaps: tuple[str, ...] = ()
    trust: Trust | None = None
    is_network: bool = True
    #: Variables and levels of the predictors in files, as in training (`data.predictors` of `data=pair`).
    predictors: Any = None

    @property
    def label(self) -> str:
        """Name, channels and spacings in one line."""
        inputs = ", ".join((*self.channels.condition, *self.channels.static))
        grids = "" if self.geometry is None else f", {self.geometry.spacings}"
        return f"{self.name}: {inputs} -> {', '.join(self.channels.target)}{grids}"

    @property
    def attrs(self) -> dict[str, str]:
        """Global attributes of predictions by this model."""
        return {"title": "Downscaled precipitation", "source": f"{self.name}" + (f", {self.path}" if self.path else "")}

    def prepared(
        self,
        data: Any,
        *,
        members: int = 8,
        seed: int = 0,
        static: Any = None,
        target: Any = None,
        conservation: str | None = "auto",
        trust: bool = True,
        tiles: Mapping[str, int] | None = None,
        observations: Readings | None = None,
        coarse: str | None = None,
    ) -> tuple[FineRain, CoarseFields]:
        """Return the `FineRain` predictor and its coarse fields; see `rainshift.Model.predict`."""
        if coarse not in (None, "exact"):
            raise UserError(f"coarse is {coarse!r}; expected exact or null")
        siblings = _siblings(data)
        static = static if static is not None else siblings.get("static")
        target = target if target is not None else siblings.get("target", siblings.get("static"))
        if isinstance(self.downscaler, General):
            seen = _channels_of(data, static)
            exact = coarse == "exact" or self.downscaler.exact
            if seen != self.channels or exact != self.downscaler.exact:
                options: dict[str, Any] = {"static": static, "target": target, "conservation": conservation}
                options |= {"members": members, "seed": seed, "trust": trust, "tiles": tiles}
                options |= {"observations": observations}
                return self.seeing(seen, exact=exact).prepared(data, **options)
            if not exact:
                logger.info(
                    "the coarse rain counts as an analysis with errors; if it is the area mean of the fine rain, "
                    "coarse=exact says so and members keep it"
                )
        fields = CoarseFields.of(data, self.channels, self.geometry)
        fine = self._fine(fields.grid, target, static)
        statics = self._statics(data, static, fine)
        exact = coarse == "exact" or (self.geometry is not None and self.geometry.exact)
        downscaler = self.ready(tiles=tiles or {}, conservation=conservation, exact=exact)
        guesses = first_guesses(self.channels, self.name) if self._rain_is_known else []
        have = tuple(fields.arrays)
        rain = have.index(self.channels.condition[guesses[0]]) if guesses else None
        observed = None
        if observations is not None:
            self.require_guidable()
            step = None if self.geometry is None else self.geometry.step_seconds
            observed = MatchedReadings.of_fields(observations, data, fields, fine, step)
        return FineRain(
            downscaler,
            self.channels,
            have,
            fields.grid,
            fine,
            statics,
            members_of(downscaler, members),
            seed,
            self.gaps,
            rain if rain is not None and have[rain] in self.gaps else None,
            self.trust if trust else None,
            observed,
        ), fields

    def require_guidable(self) -> None:
        """Raise `UserError` for a model whose members cannot be guided by observations."""
        if not takes_points(self.downscaler):
            raise UserError(
                f"observations require a diffusion model, which {self.name} is not; use model=general, or a run "
                "of model=edm, anchored or corrdiff, or remove observations"
            )

    def seeing(self, channels: Channels, *, exact: bool | None = None) -> Trained:
        """Return a general model with other predictors and `exact`; other models are returned unchanged."""
        if not isinstance(self.downscaler, General):
            return self
        told = self.downscaler.exact if exact is None else exact
        made = type(self.downscaler)(channels, exact=told)
        geometry = None if self.geometry is None else replace(self.geometry, exact=told)
        return replace(self, downscaler=made, channels=channels, geometry=geometry)

    def check(self, archive: Archive, region: str, split: str | None = None) -> None:
        """Raise `UserError` for data with a refinement factor that differs from the training."""
        if self.geometry is not None:
            here = Geometry.of(archive, region, split)
            self.geometry.check(here.coarse, here.fine)

    def ready(self, *, tiles: Mapping[str, int], conservation: str | None, exact: bool) -> Downscaler:
        """Return the downscaler in tiles with a conservation layer; "auto" adds one if the coarse rain is `exact`."""
        tiled = InTiles(self.downscaler, Tiling(**tiles)) if self.is_network else self.downscaler
        method = ("multiplicative" if exact else None) if conservation == "auto" else conservation
        return conserved(tiled, method, self.channels)

    @property
    def _rain_is_known(self) -> bool:
        return all(self.channels.guess_index(target) is not None for target in self.channels.target)

    def _fine(self, coarse: Grid, target: Any, static: Any) -> Grid:
        """Return the fine grid: `target` if given, the grid of the static fields if it fits, else as in training."""
        if target is not None:
            fine = target if isinstance(target, Grid) else grid_of(target)
            fine = _same_turn(fine, coarse)
            if self.geometry is not None:
                self.geometry.check(coarse, fine)
            return fine
        if self.geometry is None:
            raise UserError(
                f"the fine grid of {self.path or self.name} is unknown; set target= to data on the fine grid, or "
                "to geoml.Grid.latlon(…)"
            )
        if static is not None and self.channels.static:
            try:
                fine = _same_turn(grid_of(static), coarse)
                self.geometry.check(coarse, fine)
            except UserError:
                pass
            else:
                return fine
        return self.geometry.refined(coarse)

    def _statics(self, data: Any, static: Any, fine: Grid) -> Any:
        if not self.channels.static:
            return None
        if static is None:
            if not has_fields(data, self.channels.static):
                raise DataError(
                    f"the model requires the static fields {', '.join(self.channels.static)}; pass static=, a "
                    "data set on any grid that covers the domain"
                )
            static = as_dataset(data)
        return static_fields(static, self.channels.static, fine)


def load_model(run: str | os.PathLike[str], *, precision: Precision = "fp32", allow: Sequence[str] = ()) -> Trained:
    """Load the model of a run folder or checkpoint folder, or a model without training by name."""
    path = Path(run)
    if not path.exists() and str(run) in available():
        spec = ModelSpec.of(str(run))
        if spec.learns:
            raise UserError(f"{run} is the name of a model that must be trained; pass the run folder of a training")
        made = load(spec, None, RAIN_ALONE)
        geometry = Geometry.load(WEIGHTS / made.weights) if isinstance(made, General) else None
        return Trained(made, RAIN_ALONE, spec.name, geometry=geometry, is_network=spec.in_tiles, gaps=("tp",))
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    config = _config_of(path)
    downscaler = _fitted(folder, config, allow) or load_trained(path, precision=precision, allow=allow)
    is_network = not isinstance(downscaler, Baseline)
    channels: Channels = downscaler.channels if isinstance(downscaler, Baseline) else downscaler.model.channels  # type: ignore[attr-defined]
    geometry = Geometry.load(folder) or _geometry_of(config)
    gaps = tuple((config.get("data") or {}).get("expected_gaps") or ())
    named = config.get("model") or {}
    name = kind_of(named) if "_target_" in named else type(getattr(downscaler, "model", downscaler)).__name__
    predictors = (config.get("data") or {}).get("predictors")
    return Trained(downscaler, channels, name, path, geometry, gaps, found_beside(path), is_network, predictors)


def _config_of(path: Path) -> dict[str, Any]:
    """Return the configuration of the run that contains a checkpoint; empty without a run."""
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "config.yaml").is_file() and not (folder / SUMS).exists():
            return RunFolder.load(folder).config
    return {}


def _fitted(folder: Path, config: Mapping[str, Any], allow: Sequence[str]) -> Baseline | None:
    """Load the fitted baseline in a folder; None for a network."""
    if not (folder / BASELINE_FILE).exists() or not config.get("model"):
        return None
    downscaler = load(ModelSpec.of(config["model"], allow=allow), folder, archive_of(config).channels)
    return downscaler if isinstance(downscaler, Baseline) else None


def _geometry_of(config: Mapping[str, Any]) -> Geometry | None:
    """Derive the geometry of an old run, which did not save it, from its data if they still exist."""
    data, names = config.get("data") or {}, list(config.get("train_regions") or ())
    if not data or not names:
        return None
    archive = archive_of(config)
    if data.get("source") in ("synthetic", "synthetic_exact", "rainshift", "era5") and names[0] in known_regions():
        return Geometry(*grids(region(names[0])))
    try:
        return Geometry.of(archive, str(names[0]))
    except UserError:  # the data no longer exist: the user must pass the fine grid
        return None


def _channels_of(data: Any, static: Any) -> Channels:
    """Return the channels that a general model uses, from the predictors in a data set."""
    from rainshift.data.inputs import held

    fields = [*static.data_vars] if static is not None else list(as_dataset(data).data_vars)
    have = tuple(name for name in ("lsm", "z") if name in fields)
    return Channels(("tp", *held(data, SEEN)), ("precipitation",), have, (("precipitation", "tp"),))


def _siblings(data: Any) -> dict[str, Any]:
    """Return the other groups of the tree of `rainshift.open` that contains a node."""
    import xarray as xr

    if not isinstance(data, xr.DataTree) or data.parent is None:
        return {}
    return {name: node.to_dataset() for name, node in data.parent.children.items() if node is not data}


def _same_turn(fine: Grid, coarse: Grid) -> Grid:
    """Return the fine grid with longitudes in the 360° range of the coarse grid."""
    a, b = coarse.axes[-1], fine.axes[-1]
    middle = (a.start + a.stop - b.start - b.stop) / 2
    return fine.moved(**{b.name: 360.0 * round(middle / 360.0)}) if b.is_longitude else fine
