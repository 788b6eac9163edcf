"""Models of former versions: current classes and settings for the old names, which no other module uses.

Checkpoints, run folders and configurations of commit 9c6128b have one class per kind of diffusion, and the options of
network, process and sampling on one level. `upgraded` converts them to the current form; state dicts did not
change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["upgraded"]

DIFFUSION = "geoml.models.diffusion.Diffusion"
CORRDIFF, RADIODIFF = "geoml.models.corrdiff.CorrDiff", "radiomaps.models.radiodiff3d.RadioDiff3D"
CORRDIFF3D = "radiomaps.models.corrdiff3d.CorrDiff3D"
UNET, UNET3D = "geoml.models.unet.UNetRegression", "radiomaps.models.unet3d.UNet3D"

NETWORK = (
    *("base", "multipliers", "blocks", "attention", "norm", "dropout", "operator", "first_axis_halvings", "recompute"),
)  # fmt: skip
PROCESS = ("sigma_data", "p_mean", "p_std", "wiener", "parameterisation", "schedule", "diffusion_steps")
SAMPLING = ("sampler", "steps", "spacing", "sigma_min", "sigma_max", "bound", "guidance", "keep")
#: Present group of each setting of a diffusion.
GROUPS = {
    **dict.fromkeys(NETWORK, "network"),
    **dict.fromkeys(PROCESS, "process"),
    **dict.fromkeys(SAMPLING, "sampling"),
}
OF_NETWORK = dict.fromkeys(NETWORK, "network")
#: Former class: present class, group of each setting, and former default values of settings that may be missing.
MOVED: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "geoml.models.edm.EDM": (DIFFUSION, GROUPS, {"process": {"name": "edm"}}),
    "geoml.models.ddpm.DDPM": (
        DIFFUSION, GROUPS, {"process": {"name": "ddpm"}, "sampling": {"sampler": "ddim", "steps": 32}},
    ),
    "geoml.models.flow.FlowMatching": (DIFFUSION, GROUPS, {"process": {"name": "flow"}, "sampling": {"steps": 8}}),
    DIFFUSION: (DIFFUSION, GROUPS, {}),
    CORRDIFF: (CORRDIFF, GROUPS, {"process": {"name": "edm"}}),
    CORRDIFF3D: (CORRDIFF3D, GROUPS, {"process": {"name": "edm"}}),
    UNET: (UNET, OF_NETWORK, {"network": {"multipliers": [1, 2, 4]}}),
    UNET3D: (UNET3D, OF_NETWORK, {"network": {"multipliers": [1, 2, 4], "first_axis_halvings": 0}}),
    RADIODIFF: (
        RADIODIFF,
        GROUPS,
        {"process": {"name": "edm"}, "network": {"first_axis_halvings": 0}, "sampling": {"steps": 8}},
    ),
}  # fmt: skip


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a model's configuration to the current form; a current configuration is returned unchanged.

    A setting outside its group replaces the setting in the group, so that `{model: edm, base: 8}` changes the network
    of a preset.

    >>> old = {"_target_": "geoml.models.edm.EDM", "base": 4, "steps": 8}
    >>> upgraded(old)["network"], upgraded(old)["sampling"], upgraded(old)["process"]
    ({'base': 4}, {'steps': 8}, {'name': 'edm'})
    """
    known = MOVED.get(str(config.get("_target_")))
    if known is None:
        return dict(config)
    target, groups, unsaid = known
    old = str(config["_target_"]) != target or isinstance(config.get("process"), str)
    old = old or not any(isinstance(config.get(group), Mapping) for group in set(groups.values()))
    made: dict[str, Any] = {"_target_": target}
    nested: dict[str, dict[str, Any]] = {group: dict(value) for group, value in unsaid.items()} if old else {}
    for key, value in config.items():
        if key in groups:
            continue
        if key == "process" and isinstance(value, str):
            nested.setdefault("process", {})["name"] = value
        elif key in set(groups.values()) and isinstance(value, Mapping):
            nested[key] = nested.get(key, {}) | dict(value)
        elif key != "_target_":
            made[key] = value
    for key, group in groups.items():
        if key in config:
            nested.setdefault(group, {})[key] = config[key]
    return made | nested
