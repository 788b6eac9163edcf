"""Verdicts of the experts on channels as receivers measure them: other channel types, impairments, adaptation.

All experts have the committed weights. Channels are drawn with a fixed seed; none was used for training or selection.
Measured channels are read from the folder of real data (`GEOML_DATA`); without it their figures are null.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import main
from numpy.typing import NDArray

from geoml.cli.tables import show
from mcp_experts.channels.channel import Channel, from_taps
from mcp_experts.inference.network import Network
from mcp_experts.inference.registry import Expert, Registry
from mcp_experts.inference.verdicts import ChannelView, judge
from mcp_experts.train.adapt import balanced_accuracy, fit_to
from mcp_experts.train.clusters import office_links, uwb_links
from mcp_experts.train.impairments import IMPAIRMENTS
from mcp_experts.train.rays import ray_links
from mcp_experts.train.scores import calibration_error, confusions, interval, kappa
from mcp_experts.train.traced import traced_links
from mcp_experts.train.truths import DOPPLER_CELLS, LATEST_CELLS, TRUTHS, Links, log_uniform, observe, truths

SEED = 20_260
#: Bandwidths of the channels with impairments, which are those of most receivers.
BAND_HZ = (5e6, 80e6)
TASKS = ("los", "delay_spread", "doppler")
#: Experts and gates trained without one type of channel; path tables of cities that no training contained.
WEIGHTS = Path(__file__).resolve().parent / "weights" / "experts"
CITIES = Path("runs/cities/apart")
UNSEEN = ("etoile", "florence", "munich", "san_francisco")
#: Columns for each task: with abstentions, and with the most probable class in all cases.
CITY_FIGURES = {
    "los": ("los_kappa_unseen_cities", "los_kappa_unseen_cities_all_answered"),
    "delay_spread": ("delay_spread_kappa_unseen_cities", "delay_spread_kappa_unseen_cities_all_answered"),
    "doppler": ("doppler_kappa_unseen_cities", "doppler_kappa_unseen_cities_all_answered"),
}
MEASURED = "radio/uwb_cirs_2018_half.npz"
CLASSES = {"LOS": 1, "NLOS": 0, "NDP NLOS": 0}
SPLITS, LINKS, OF_EACH = 20, 10, 20


@dataclass(frozen=True)
class Answers:
    """Verdicts on `n` channels: the class of each, −1 for an abstention, and the most probable class."""

    truth: NDArray[np.int64]
    label: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    in_set: NDArray[np.bool_]

    @property
    def answered(self) -> float:
        """Share of channels with a label."""
        return float(np.mean(self.label >= 0))

    @property
    def right(self) -> float:
        """Share of correct labels among the answered channels; NaN if there are none."""
        given = self.label >= 0
        return float(np.mean(self.label[given] == self.truth[given])) if given.any() else float("nan")

    @property
    def error(self) -> float:
        """Calibration error of the answered channels, minus its expected value for perfectly calibrated answers."""
        given = self.label >= 0
        if given.sum() < 30:
            return float("nan")
        truth, probabilities = self.truth[given], self.probabilities[given]
        rng = np.random.default_rng(0)
        cumulated = np.cumsum(probabilities, axis=1)
        by_chance = []
        for _ in range(50):
            drawn = (rng.random((len(truth), 1)) * cumulated[:, -1:] > cumulated).sum(axis=1)
            by_chance.append(calibration_error(np.minimum(drawn, probabilities.shape[1] - 1), probabilities))
        return max(calibration_error(truth, probabilities) - float(np.mean(by_chance)), 0.0)

    def confusions(self, classes: int, group: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return counts `[group, truth, label]`. By default each channel is a group; abstention is an extra label."""
        label = np.where(self.label >= 0, self.label, classes)
        return confusions(self.truth, label, np.arange(len(label)) if group is None else group, classes + 1)

    def kappa(self, classes: int, *, all_answered: bool = False) -> float:
        """Return Cohen's kappa, with abstentions or with the most probable classes."""
        given = replace(self, label=self.probabilities.argmax(axis=1)) if all_answered else self
        return float(kappa(given.confusions(classes).sum(axis=0)))


def answers(expert: Expert, looks: Iterable[ChannelView], truth: NDArray[np.int64], registry: Registry) -> Answers:
    """Return the verdicts on the channels with a known truth."""
    classes = expert.definition.classes
    label, probabilities, in_set, known = [], [], [], []
    for look, true in zip(looks, truth, strict=True):
        if true < 0:
            continue
        verdict = judge(expert, look, registry)
        label.append(-1 if verdict.label is None else classes.index(verdict.label))
        probabilities.append(look.probabilities(expert))
        in_set.append(classes[true] in verdict.likely)
        known.append(true)
    return Answers(np.array(known), np.array(label), np.array(probabilities), np.array(in_set))


def drawn(links: Links, rng: np.random.Generator) -> tuple[NDArray[np.complex64], Links, NDArray[np.float64]]:
    """Generate windows of the links at 10 dB and more, and their truths."""
    csi, snr_db = observe(links, rng)
    kept = snr_db > 10
    return csi[kept], links.rows(kept), truths(links.rows(kept), snr_db[kept])


def looks(csi: NDArray[np.complex64], links: Links) -> list[ChannelView]:
    """Wrap each window as a channel; snapshots are 1 ms apart."""
    spacing = links.bandwidth_hz / csi.shape[1]
    return [
        ChannelView(Channel(csi=one, subcarrier_spacing_hz=float(each), snapshot_interval_s=1e-3))
        for one, each in zip(csi, spacing, strict=True)
    ]


def wave_links(count: int, rng: np.random.Generator) -> Links:
    """Draw random plane waves with slow motion, so that effects of receivers are visible."""
    return ray_links(
        count,
        rng,
        k_factor_db=rng.normal(9, 4, count),
        bandwidth_hz=log_uniform(rng, BAND_HZ, count),
        delay_cells=log_uniform(rng, (0.3, 3.0), count),
        doppler_cells=log_uniform(rng, (DOPPLER_CELLS[0], 1.5), count),
        latest_cells=LATEST_CELLS,
    )


def impaired(registry: Registry, count: int) -> dict[str, float]:
    """Return the largest loss of answers and of accuracy over single impairments, for each task."""
    rng = np.random.default_rng(SEED)
    csi, links, known = drawn(tapped_links(count, rng), rng)
    experts = [registry.expert(name) for name in TASKS]
    labels = {expert.name: expert.definition.labels(truth_of(known, expert)) for expert in experts}
    clean = {expert.name: answers(expert, looks(csi, links), labels[expert.name], registry) for expert in experts}
    rows, shares, losses = [], [], []
    for name, impairment in {"none": None, **IMPAIRMENTS}.items():
        spoilt = csi if impairment is None else impairment.apply(csi, np.random.default_rng([SEED, 1]))
        views = looks(spoilt, links)
        row: dict[str, object] = {"impairment": name, "size": impairment.size if impairment else ""}
        for expert in experts:
            found, base = answers(expert, views, labels[expert.name], registry), clean[expert.name]
            row[f"{expert.name} answered"] = round(found.answered, 3)
            row[f"{expert.name} right"] = round(found.right, 3)
            if impairment is None or (expert.definition.needs_time and name in ("timing_jitter", "phase_jitter")):
                continue  # for these, experts on time variation should abstain
            shares.append(found.answered / base.answered)
            losses.append(100 * (base.right - found.right) if found.answered else 100.0)
        rows.append(row)
    show(rows)
    return {
        "impaired_answered": min(shares),
        "impaired_loss_points": max(losses),
        "impaired_cases_met": float(np.mean((np.array(shares) >= 0.8) & (np.array(losses) <= 3))),
    }


def truth_of(known: NDArray[np.float64], expert: Expert) -> NDArray[np.float64]:
    """Return the column of the truth for an expert."""
    return known[:, TRUTHS.index(expert.definition.truth)]


def tapped_links(count: int, rng: np.random.Generator) -> Links:
    """Draw tapped delay lines A to E of TR 38.901 if Sionna is installed, otherwise plane waves."""
    try:
        from mcp_experts.train.generators import generate
    except ImportError:
        return wave_links(count, rng)
    every = list(generate("tdl", 4 * count, SEED))
    slow = [links.rows((links.doppler_cells < 1.5) & (links.bandwidth_hz < BAND_HZ[1])) for links in every]
    joined = {
        name: np.concatenate([_padded(getattr(links, name), 24, name) for links in slow if len(links)])
        for name in Links.__dataclass_fields__
        if name != "alike"
    }
    return replace(Links(**joined).rows(np.arange(len(joined["los"])) < count), alike=False)


def _padded(values: NDArray[np.generic], paths: int, name: str) -> NDArray[np.generic]:
    """Pad the profiles to an equal number of paths with paths of zero power."""
    if name not in ("gains", "delays_s"):
        return values
    missing = [(0, 0)] * values.ndim
    missing[1] = (0, paths - values.shape[1])
    return np.pad(values, missing)


def kinds(count: int, rng: np.random.Generator) -> dict[str, list[Links]]:
    """Draw new links of each type."""
    doppler = log_uniform(rng, DOPPLER_CELLS, count)
    return {
        "offices": [office_links(count, rng, doppler)],
        "ultra_wideband": [uwb_links(count, rng, doppler)],
        "waves": [wave_links(count, rng)],
    }


def other_kinds(count: int) -> dict[str, float]:
    """Score experts and a gate on the channel type that their training lacked: answered, correct, calibrated."""
    rng = np.random.default_rng([SEED, 2])
    rows, errors, shares = [], [], []
    for kind, several in kinds(count, rng).items():
        registry = Registry(only=TASKS, adapted=WEIGHTS / kind)
        parts = [drawn(links, rng) for links in several]
        views = [look for csi, links, _ in parts for look in looks(csi, links)][:count]
        known = np.concatenate([part[2] for part in parts])[:count]
        for name in TASKS:
            expert = registry.expert(name)
            found = answers(expert, views, expert.definition.labels(truth_of(known, expert)), registry)
            rows.append({"kind left out": kind, "task": name, **row_of(found, len(expert.definition.classes))})
            errors.append(found.error)
            shares.append(found.answered)
    show(rows)
    return {"worst_left_out_ece": float(np.nanmax(errors)), "least_left_out_answered": min(shares)}


def row_of(found: Answers, classes: int, group: NDArray[np.int64] | None = None) -> dict[str, object]:
    """Return a table row about answers; the interval is from a bootstrap over groups of links."""
    table = found.confusions(classes, group)
    low, high = interval(kappa, table)
    return {
        "channels": len(found.truth),
        "kappa, all answered": round(found.kappa(classes, all_answered=True), 3),
        "answered": round(found.answered, 3),
        "right of answered": round(found.right, 3),
        "kappa": round(float(kappa(table.sum(axis=0))), 3),
        "95 %": f"{low:.2f} to {high:.2f}",
        "calibration error": round(found.error, 3),
        "truth in set": round(float(found.in_set.mean()), 3),
    }


def cities(registry: Registry, count: int) -> dict[str, float | None]:
    """Return kappa in real cities that no training contained, mean over four; abstentions count as wrong."""
    tables = [CITIES / f"{name}.npz" for name in UNSEEN]
    if not all(path.is_file() for path in tables):
        print(f"{CITIES} lacks path tables; docs/experts-training.md traces them", file=sys.stderr)
        return dict.fromkeys(name for names in CITY_FIGURES.values() for name in names)
    scores: dict[str, list[float]] = {name: [] for names in CITY_FIGURES.values() for name in names}
    rows = []
    for path in tables:
        rng = np.random.default_rng([SEED, 3])
        parts = [drawn(links.rows(np.arange(len(links)) < count), rng) for links in traced_links([path], SEED)]
        views = [look for csi, links, _ in parts for look in looks(csi, links)]
        known = np.concatenate([part[2] for part in parts])
        group = np.repeat(np.arange(len(parts)), [len(part[2]) for part in parts])
        for task in TASKS:
            expert = registry.expert(task)
            found = answers(expert, views, expert.definition.labels(truth_of(known, expert)), registry)
            classes = len(expert.definition.classes)
            rows.append({"city": path.stem, "task": task, **row_of(found, classes, group)})
            for all_answered, name in enumerate(CITY_FIGURES[task]):
                scores[name].append(found.kappa(classes, all_answered=bool(all_answered)))
    show(rows)
    return {name: float(np.mean(each)) for name, each in scores.items()}


def measured(registry: Registry, splits: int) -> dict[str, float | None]:
    """Score the measured ultra-wideband links: shipped experts, and experts adapted to ten links, 20 random splits."""
    names = ("uwb_answered", "uwb_right_of_answered", "uwb_truth_in_set", "uwb_adapted_balanced_accuracy")
    path = Path(os.environ.get("GEOML_DATA", "")) / MEASURED
    if not path.is_file():
        print(f"measured channels are not there (GEOML_DATA/{MEASURED}): their figures are null", file=sys.stderr)
        return dict.fromkeys(names)
    with np.load(path) as file:
        pairs, files = file["cir_iq"].astype(float), file["file_id"].astype(int)
        classes = dict(zip(file["link_file_id"].tolist(), file["link_label"].tolist(), strict=True))
    chosen = np.concatenate([np.flatnonzero(files == one)[:: 40 // OF_EACH] for one in classes])
    link = files[chosen]
    truth = np.array([CLASSES[classes[one]] for one in link.tolist()])
    taps = pairs[chosen, :, 0] + 1j * pairs[chosen, :, 1]
    views = [ChannelView(from_taps(one, sample_rate_hz=998.4e6, snapshot_interval_s=1e-3)) for one in taps]
    expert = registry.expert("los")
    shipped = answers(expert, views, truth, registry)
    given = shipped.label >= 0
    by_link = [np.mean(given[link == one]) for one in np.unique(link)]
    right = balanced_accuracy(truth[given], shipped.label[given], link[given]) if given.any() else None
    scores, said, sure = [], [], []
    rng = np.random.default_rng(SEED)
    every = np.unique(link)
    while len(scores) < splits:
        inside = np.isin(link, rng.permutation(every)[:LINKS])
        if len(np.unique(truth[inside])) < 2 or len(np.unique(truth[~inside])) < 2:
            continue
        known, others = ([views[index] for index in np.flatnonzero(rows)] for rows in (inside, ~inside))
        fitted = fit_to(expert, registry.gate, known, truth[inside], link[inside])
        rest = answers(_adapted(expert, fitted.arrays, fitted.card), others, truth[~inside], registry)
        scores.append(balanced_accuracy(rest.truth, rest.probabilities.argmax(axis=1), link[~inside]))
        said.append(rest.answered)
        sure.append(rest.right)
    table = {"balanced accuracy, all answered": scores, "answered": said, "right of answered": sure}
    show(
        [
            {"after adapting": name, "mean": np.nanmean(each), "lowest": np.nanmin(each), "highest": np.nanmax(each)}
            for name, each in table.items()
        ]
    )
    values = (float(np.mean(by_link)), right, float(shipped.in_set.mean()), float(np.mean(scores)))
    return dict(zip(names, values, strict=True))


def _adapted(expert: Expert, arrays: Mapping[str, NDArray[np.generic]], card: Mapping[str, object]) -> Expert:
    """Return the expert as read from the files that `mcp-experts adapt` writes."""
    own = Expert(expert.definition, expert.folder)
    vars(own)["network"] = Network.from_arrays(dict(arrays))
    vars(own)["card"] = expert.card | dict(card)
    return own


def measure(quick: bool) -> dict[str, float | None]:
    """Return all figures."""
    registry = Registry()
    count = 100 if quick else 250
    return {
        **impaired(registry, count),
        **other_kinds(150 if quick else 900),
        **cities(registry, 20 if quick else 1000),
        **measured(registry, 3 if quick else SPLITS),
    }


if __name__ == "__main__":
    main("experts", measure)
