"""Deviation of a network from equivariance under mirror images of the scene."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from geoml.data.fields import Batch
from geoml.models.base import Model
from geoml.models.diffusion import Diffusion
from geoml.models.noise import member_noise
from radiomaps.tasks.augment import flipped

__all__ = ["corner", "flip_error", "flip_errors"]


def corner(batch: Batch, edge: int = 64) -> Batch:
    """The conditions of a batch on at most `edge` voxels from the origin along x and y."""
    y, x = batch.target_grid.names[-2:]
    part = slice(0, edge)
    grid = batch.target_grid.crop(**{y: part, x: part})
    return Batch(batch.condition[..., part, part], grid, grid, ids=batch.ids)


def flip_error(model: Model, batch: Batch, *, seed: int = 0) -> float:
    """The root mean square of `flip_errors` over all target channels."""
    return float(flip_errors(model, batch, seed=seed).square().mean().sqrt())


@torch.no_grad()
def flip_errors(model: Model, batch: Batch, *, seed: int = 0) -> Float[Tensor, " target"]:
    """Root mean square, in the encoding's units, of a flipped prediction minus the prediction of flipped inputs.

    By target channel, over the 7 flips and turns of a square other than the identity (the 3 without quarter turns where
    maps are not square) and all voxels; 0 for an equivariant network. For a diffusion model the first denoising step is
    compared, from noise that is transformed with the map. The batch is in transformed space, on one grid.
    """
    rows, columns = batch.target_grid.shape[-2:]
    names = model.channels
    bare = batch.map(mask=None)
    noisy = bare.map(target=_noisy(model, bare, seed))
    straight = bare.map(target=_answer(model, noisy))
    total = []
    for symmetry in range(1, 8 if rows == columns else 4):
        turns = [symmetry] * len(batch)
        turned = _answer(model, flipped(noisy, names, turns))
        expected = flipped(straight, names, turns).target
        assert expected is not None
        total.append((turned - expected).square().transpose(0, 1).flatten(1).mean(dim=1))
    return torch.stack(total).mean(dim=0).sqrt()


def _noisy(model: Model, batch: Batch, seed: int) -> Tensor:
    """The initial noise of a diffusion model, as fields; empty for a regression."""
    shape = (len(model.channels.target), *batch.target_grid.shape)
    if not isinstance(model, Diffusion):
        return batch.condition.new_zeros((len(batch), *shape))
    noise = member_noise(shape, batch.ids, members=1, seed=seed, device=batch.condition.device)[:, 0]
    predictors = model.predictors(batch)
    return model.centre(predictors) + model.scales(predictors) / model.unit * model.path[0] * noise


def _answer(model: Model, batch: Batch) -> Tensor:
    """The prediction, or the first denoised fields of the noisy ones in the target's place."""
    assert batch.target is not None
    if not isinstance(model, Diffusion):
        return model.predict(batch)[:, 0]
    predictors = model.predictors(batch)
    centre, level = model.centre(predictors), model.path[0]
    factor = model.scales(predictors) / model.unit
    sigma = centre.new_full((len(batch),), level)
    return centre + factor * model.denoiser(predictors)((batch.target - centre) / factor, sigma)
