"""`radiomaps calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoml.runs.folder import RunFolder, plain
from radiomaps.raytrace.calibration.fit import Priors
from radiomaps.raytrace.calibration.run import calibrate as fit_sites
from radiomaps.raytrace.options import TraceOptions

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["calibrate"]


def calibrate(config: DictConfig, run: RunFolder) -> list[dict[str, Any]]:
    """Fit sites and materials to measured powers; the run folder contains the files for `radiomaps trace`."""
    from geoml.report.drawing import save_figure
    from radiomaps.generation.plan import furnished
    from radiomaps.report.residuals import draw_residuals
    from radiomaps.scenes import load

    values = plain(config)
    scene = load(furnished([values["scene"]], values["materials"])[0])
    made = fit_sites(
        scene, values["sites"], values["measurements"],
        options=TraceOptions(**values["options"], seed=int(values["seed"])),
        priors=Priors(**values["priors"]), rays=int(values["rays"]), top=int(values["top"]),
        seed=int(values["seed"]),
        **{name: float(values[name]) for name in ("average_m", "block_m", "held_out_share", "height_m")},
    )  # fmt: skip
    files = made.write(run.path)
    save_figure(draw_residuals(made, scene), run.path / "residuals.png")
    words = [f"transmitters.sites={files['sites']}"]
    words += [f"materials.table={files['materials']}"] if "materials" in files else []
    run.write_summary({**made.scores, "trace": " ".join(words)})
    rows = [*made.fit.rows(), *({"parameter": name, "applied": value} for name, value in made.scores.items())]
    rows += [{"parameter": f"readings left out: {why}", "applied": n} for why, n in made.measured.left_out.items()]
    return [*rows, *({"parameter": name, "file": str(file)} for name, file in files.items())]
