"""Inputs of anchored models: predictors at fixed physical scales, in slots that may be empty."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoml.constants import STANDARD_GRAVITY
from geoml.data.fields import Batch
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.models.noise import sample_noise
from geoml.nn.upsampling import GridUpsample
from rainshift.models.amounts import compressed

__all__ = ["EXACT", "PREDICTOR_SLOTS", "SLOT_FIELDS", "Slots"]

#: Predictor that is 1 if the coarse rain is the exact mean of the fine rain, else 0.
EXACT = "exact"
#: Predictors with a slot, except for the rain; `relief` represents the static fields.
COARSE_SLOTS = ("cp", "cape", "sp", "tclw", "tcw", "tisr", "u", "v")
PREDICTOR_SLOTS = (*COARSE_SLOTS, "relief")
#: Number of input fields: rain twice, eight predictors, two anomalies, land, height, ascent, nine flags, exactness.
SLOT_FIELDS = 2 + len(COARSE_SLOTS) + 2 + 3 + len(PREDICTOR_SLOTS) + 1
#: Probabilities in training of emptying all slots of a sample, of emptying a single slot, and of hiding `exact`.
LOSE_ALL, LOSE_EACH, NOT_TOLD = 0.5, 0.1, 0.2
#: A predictor with a larger share of values outside its training range counts as missing in that sample.
NOVEL_SHARE = 0.1
UNSEEN = 1e30
KM_PER_DEGREE = 111.195


class Slots(nn.Module):
    """Build the network input `(batch, SLOT_FIELDS, *fine)` from a batch in physical units with any predictors.

    Each predictor has a slot (input field) and a flag. Both are 0 if the batch does not have the predictor. In
    training, random slots are emptied, so one network works with any predictors. Values have fixed physical scales
    instead of statistics of a region. In prediction, values outside the training range are clipped. A predictor with a
    share of more than `NOVEL_SHARE` of such values in a sample is treated as missing in it.
    """

    low: Tensor
    high: Tensor

    def __init__(self, channels: Channels, *, exact: bool = False) -> None:
        super().__init__()
        self.channels = channels
        (target,) = channels.target
        guess = channels.guess_index(target)
        if guess is None:
            raise ValueError(f"anchored models need the coarse version of {target} among {channels.condition}")
        self.guess = guess
        #: Whether the coarse rain is the exact mean of the fine rain, if no predictor contains this.
        self.exact = exact
        #: Share of predictor values of the last prediction that were outside the training range.
        self.outside = 0.0
        #: Sum of these shares and number of predictions since `taken_outside`.
        self._tally = (0.0, 0)
        # The training range of each coarse slot; low > high if it was never filled.
        self.register_buffer("low", torch.full((len(COARSE_SLOTS),), UNSEEN))
        self.register_buffer("high", torch.full((len(COARSE_SLOTS),), -UNSEEN))
        self.smooth, self.blocks = GridUpsample(), GridUpsample(method="conservative")

    def taken_outside(self) -> float:
        """Return the mean of `outside` over the predictions since the last call, such as the tiles of a domain."""
        (total, count), self._tally = self._tally, (0.0, 0)
        return total / max(count, 1)

    def rain(self, batch: Batch) -> Float[Tensor, "batch one *fine"]:
        """Return the interpolated coarse rain, transformed by `compressed`."""
        coarse = batch.condition[:, self.guess : self.guess + 1].clamp(min=0)
        return compressed(self.smooth(coarse, batch.condition_grid, batch.target_grid).clamp(min=0))

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Return the input fields. With a generator, random slots are emptied."""
        coarse = self._coarse(batch)
        kept = self._kept(batch, generator)
        if self.training:
            self._widen(coarse, kept)
        else:
            coarse, kept = self._within(coarse, kept)
        log_water, log_cape = coarse["tcw"], coarse["cape"]
        mean = (-2, -1)
        anomalies = (
            4 * (log_water - log_water.mean(mean, keepdim=True)) * kept["tcw"],
            2 * (log_cape - log_cape.mean(mean, keepdim=True)) * kept["cape"],
        )
        stacked = torch.stack([coarse[name] * kept[name] for name in COARSE_SLOTS] + list(anomalies), dim=1)
        grids = batch.condition_grid, batch.target_grid
        fine = self.smooth(stacked, *grids).clamp(-6, 6)
        tp = batch.condition[:, self.guess : self.guess + 1].clamp(min=0)
        rain = compressed(self.blocks(tp, *grids).clamp(min=0))
        flags = torch.stack([kept[name] for name in (*PREDICTOR_SLOTS, EXACT)], dim=1)
        flags = flags.expand(-1, -1, *fine.shape[-2:])
        return torch.cat((self.rain(batch), rain, fine, self._relief(batch, fine, kept["relief"]), flags), dim=1)

    def _coarse(self, batch: Batch) -> dict[str, Tensor]:
        """Return the scaled coarse slots; 0 for predictors that the data do not have."""
        tp = batch.condition[:, self.guess].clamp(min=0)
        named = {name: batch.condition[:, i] for i, name in enumerate(self.channels.condition)}
        zero = torch.zeros_like(tp)
        return {
            "cp": (named["cp"].clamp(min=0) / (tp + 0.02)).clamp(max=1.5) if "cp" in named else zero,
            "cape": (1 + named["cape"].clamp(min=0) / 10).log10() / 3 if "cape" in named else zero,
            "sp": (named["sp"] / 101_325 - 1) * 5 if "sp" in named else zero,
            "tclw": (1 + named["tclw"].clamp(min=0) / 0.01).log10() if "tclw" in named else zero,
            "tcw": (named["tcw"].clamp(min=0.5) / 20).log10() if "tcw" in named else zero,
            "tisr": named["tisr"] / 1000 if "tisr" in named else zero,
            "u": named["u"] / 15 if "u" in named else zero,
            "v": named["v"] / 15 if "v" in named else zero,
        }

    def _widen(self, coarse: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
        """Extend the training range by the 1 % and 99 % quantiles of the batch."""
        for i, name in enumerate(COARSE_SLOTS):
            if name in self.channels.condition:
                ends = torch.quantile(coarse[name].detach().flatten()[::3].float(), self.low.new_tensor([0.01, 0.99]))
                self.low[i] = torch.minimum(self.low[i], ends[0])
                self.high[i] = torch.maximum(self.high[i], ends[1])

    def _within(
        self, coarse: dict[str, Tensor], kept: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Clip values to the training range, and empty slots with many clipped values in a sample."""
        cut, still, counts = {}, dict(kept), []
        for i, name in enumerate(COARSE_SLOTS):
            low, high = self.low[i], self.high[i]
            if name not in self.channels.condition or bool(low > high):
                cut[name] = coarse[name]
                continue
            margin = 0.05 * (high - low)
            outside = ((coarse[name] < low - margin) | (coarse[name] > high + margin)).float()
            share = outside.mean((-2, -1), keepdim=True)
            counts.append(float(share.mean()))
            cut[name] = coarse[name].clamp(float(low - margin), float(high + margin))
            still[name] = kept[name] * (share <= NOVEL_SHARE)
        self.outside = sum(counts) / max(len(counts), 1)
        self._tally = self._tally[0] + self.outside, self._tally[1] + 1
        return cut, still

    def _relief(self, batch: Batch, fine: Tensor, kept: Tensor) -> Tensor:
        """Return land fraction, height in km, and ascent of the wind along the slope."""
        if batch.static is None or "z" not in self.channels.static:
            return fine.new_zeros((len(fine), 3, *fine.shape[-2:]))
        height = batch.static[:, self.channels.static.index("z")] / STANDARD_GRAVITY
        land = torch.zeros_like(height)
        if "lsm" in self.channels.static:
            land = batch.static[:, self.channels.static.index("lsm")]
        north, east = _slopes(height, batch.target_grid)
        u, v = (15 * fine[:, 6 + i] for i in range(2))  # the slots of the wind
        ascent = ((u * east + v * north) / 0.05).clamp(-4, 4)
        return torch.stack((land, height / 1000, ascent), dim=1) * kept.unsqueeze(1)

    def _kept(self, batch: Batch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return for each slot and sample whether it is filled, `(batch, 1, 1)`."""
        have = {*self.channels.condition} | ({"relief"} if "z" in self.channels.static else set())
        ones = batch.condition.new_ones((len(batch), 1, 1))
        kept = {name: ones if name in have else torch.zeros_like(ones) for name in PREDICTOR_SLOTS}
        exact = ones * float(self.exact)
        if EXACT in have:
            flag = batch.condition[:, self.channels.condition.index(EXACT)]
            exact = flag.mean((-2, -1), keepdim=True)
        kept[EXACT] = exact
        if generator is None:
            return kept
        draws = sample_noise((len(kept) + 1,), batch.ids, generator, draw="slots", uniform=True).to(ones.device)
        some = draws[:, -1:] >= LOSE_ALL
        for i, name in enumerate(kept):
            chance = NOT_TOLD if name == EXACT else LOSE_EACH
            stays = draws[:, i : i + 1] >= chance
            stays = stays if name == EXACT else stays & some
            kept[name] = kept[name] * stays.unsqueeze(-1)
        return kept


def _slopes(height: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Compute slopes in metres per metre to the north and to the east, in the row order of the grid.

    Lengths of degrees of longitude are those at 40° latitude, since the samples of a batch share one grid but have
    different latitudes.
    """
    lat, lon = grid.axes[-2:]
    north_m, east_m = 1e3 * KM_PER_DEGREE * lat.step, 1e3 * KM_PER_DEGREE * lon.step * math.cos(math.radians(40))
    north, east = torch.gradient(height, spacing=[north_m, east_m], dim=(-2, -1))
    return north, east
