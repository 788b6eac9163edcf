"""Speed of the shipped general diffusion in members per minute, and the loss from few network evaluations.

- `few_step_crps_over_sixteen`: fair CRPS with the shipped sampling over that with 16 evaluations of the same network,
  in random climates from the ranges of the training that were not in it; mean over climates.
- `members_a_minute`: members per minute for a domain of 200 x 200 cells, over those of the first shipped sampling (8
  evaluations from a noise level of 80, weights in the default memory layout). One thread; both take turns.

The table shows several numbers of evaluations, with the spread–skill ratio and the number of connected wet areas.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import numpy as np
import places
import torch
from harness import least_seconds, main

from geoml.cli.tables import show
from geoml.metrics import Suite
from geoml.models.diffusion import Diffusion
from rainshift.models.general import General
from rainshift.sources import open_source

SUITE = Suite(["crps_fair", "spread_skill", "objects_ratio"], thresholds=[0.1])
EVALUATIONS = (2, 4, 8, 16)
MEMBERS = 8


def network_of(model: General) -> Diffusion:
    """Return the diffusion network of a general model."""
    network = model._predictor.model
    assert isinstance(network, Diffusion)
    return network


def scores(steps: int, found: list[Any]) -> dict[str, Any]:
    """Return the fair CRPS of each climate with a number of evaluations, and pooled scores."""
    crps, tables = [], []
    for _, data, hours in found:
        model = General(places.ALL, exact=places.is_exact(data))
        network_of(model).sample_by(steps=steps)
        for batch in places.batches(data, hours, places.ALL, at_once=len(hours)):
            assert batch.target is not None
            rain = model.predict(batch, members=MEMBERS)[0][:, :, 0].numpy()
            tables.append(SUITE.update(rain, batch.target[:, 0].numpy(), ids=np.array(batch.ids)))
        crps.append(SUITE.evaluate(tables[-1])["crps_fair"])
    others = {name: np.nanmedian([SUITE.evaluate(one)[name] for one in tables]) for name in list(SUITE.metrics)[1:]}
    return {"evaluations": steps, "crps": np.array(crps), **{f"{k}, median": float(v) for k, v in others.items()}}


def seconds(rounds: int) -> dict[str, float]:
    """Return the times for members of one field of 200 x 200 cells, with the current and the first shipped sampling."""
    data = open_source("synthetic", size_deg=20).blocks("melanesia", np.array([places.FIRST_DAY]))
    (batch,) = places.batches(data, [12], places.ALL)
    now, before = General(places.ALL), General(places.ALL)
    network = network_of(before)
    network.sample_by(steps=8, sigma_max=80.0)
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    models = {"as shipped": now, "as first shipped": before}
    calls = {name: lambda model=model: model.predict(batch, members=MEMBERS) for name, model in models.items()}
    return least_seconds(calls, rounds)


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    torch.set_num_threads(1)
    shipped = network_of(General(places.ALL)).sampling.steps
    found = list(places.drawn(1 if quick else 6, outside=False))
    rows = [scores(steps, found) for steps in sorted({shipped, *((16,) if quick else EVALUATIONS)})]
    crps = {row["evaluations"]: row.pop("crps") for row in rows}
    for row in rows:
        row["CRPS over 16 evaluations"] = float(np.nanmean(crps[row["evaluations"]] / crps[16]))
    took = seconds(1 if quick else 3)
    show(rows)
    show([{"sampling": name, "members a minute, 200 x 200 cells": 60 * MEMBERS / t} for name, t in took.items()])
    return {
        "few_step_crps_over_sixteen": float(np.nanmean(crps[shipped] / crps[16])),
        "members_a_minute": took["as first shipped"] / took["as shipped"],
    }


if __name__ == "__main__":
    main("members", measure)
