"""Trust maps where the error is known: ranking, coverage, novelty, and what they may look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from geoml.errors import DataError, UserError
from geoml.fields import Batch
from geoml.grids import Grid
from rainshift.trust import Trust, auroc, features, risk_coverage

COARSE = Grid.latlon(0, 2, 0, 2, 0.25, "node", half_open=True)
FINE = Grid.latlon(0, 2, 0, 2, 0.1)


def weather(hours: int, seed: int, *, wind: float = 0.0) -> tuple[Batch, torch.Tensor]:
    """Rain whose error is Laplace noise, as large as a wind that the prediction knows nothing of."""
    rng = np.random.default_rng(seed)
    speed = rng.gamma(2, 1, (hours, 1, 1, 1)) * np.ones((hours, 1, *COARSE.shape)) + wind
    noise = speed[:, :, :1, :1] * 0.3 * rng.laplace(size=(hours, 1, *FINE.shape))
    rain = rng.gamma(1, 1, (hours, 1, *FINE.shape)) + 3
    tensors = {
        "condition": np.concatenate([speed, rng.normal(size=speed.shape)], axis=1),
        "target": rain + noise,
        "mask": rng.random(rain.shape) < 0.9,
        "static": np.zeros((hours, 1, *FINE.shape)),
    }
    tensors["target"][~tensors["mask"]] = np.nan
    batch = Batch(
        condition_grid=COARSE,
        target_grid=FINE,
        ids=tuple(range(hours)),
        **{
            name: torch.from_numpy(value if name == "mask" else value.astype(np.float32))
            for name, value in tensors.items()
        },
    )
    return batch, torch.from_numpy(rain.astype(np.float32))[:, None]


def cells(batch: Batch, prediction: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    found, error = features(batch, prediction), (prediction[:, 0, 0] - batch.target[:, 0]).abs()
    return [(found[i].movedim(0, -1)[known], error[i][known]) for i, known in enumerate(batch.mask[:, 0])]


@pytest.fixture(scope="module")
def trust() -> Trust:
    return Trust.fit(cells(*weather(120, 0)), cells(*weather(80, 1)))


def test_expected_error_is_that_of_the_law(trust: Trust) -> None:
    batch, prediction = weather(60, 2)
    said = trust(batch, prediction)
    # √|e| of Laplace noise of scale b has the mean Γ(3/2) √b: the network learns roots, and their square is (π/4) b.
    scale = 0.3 * batch.condition[:, 0, 0, 0]
    made = said.expected_error.mean(dim=(1, 2))
    middle = (scale > 0.2) & (scale < 1.5)
    assert made[middle].numpy() == pytest.approx(np.pi / 4 * scale[middle].numpy(), rel=0.2)


def test_ranks_errors_that_predicted_rain_knows_nothing_of(trust: Trust) -> None:
    batch, prediction = weather(60, 3)
    known = batch.mask[:, 0]
    error = (prediction[:, 0, 0] - batch.target[:, 0]).abs()[known].numpy()
    large = error > np.quantile(error, 0.9)
    said = trust(batch, prediction)
    perfect = auroc(batch.condition[:, 0, :1, :1].expand(known.shape)[known].numpy(), large)
    assert auroc(said.expected_error[known].numpy(), large) > perfect - 0.02
    assert auroc(prediction[:, 0, 0][known].numpy(), large) == pytest.approx(0.5, abs=0.05)
    assert perfect > 0.65


def test_bound_holds_where_weather_is_alike_and_novelty_says_where_it_is_not(trust: Trust) -> None:
    batch, prediction = weather(150, 4)
    said, known = trust(batch, prediction), batch.mask[:, 0]
    error = (prediction[:, 0, 0] - batch.target[:, 0]).abs()
    assert float((error <= said.bound)[known].float().mean()) == pytest.approx(0.9, abs=0.02)
    assert float(said.familiar.float().mean()) == pytest.approx(0.9, abs=0.04)
    strange = trust(*weather(20, 5, wind=30.0))
    assert not strange.familiar.any()
    assert float(strange.novelty.min()) > float(said.novelty.median())


def test_labels_are_not_looked_at_and_the_same_seed_gives_the_same_map(trust: Trust) -> None:
    batch, prediction = weather(3, 6)
    said, blind = trust(batch, prediction), trust(batch.map(target=None, mask=None), prediction)
    assert torch.equal(said.expected_error, blind.expected_error)
    state = torch.random.get_rng_state()
    again = Trust.fit(cells(*weather(120, 0)), cells(*weather(80, 1)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(again(batch, prediction).bound, said.bound)


def test_kept_in_a_file(trust: Trust, tmp_path) -> None:
    batch, prediction = weather(2, 7)
    trust.save(tmp_path)
    again = Trust.load(tmp_path)
    assert (again.factor, again.limit, again.level) == (trust.factor, trust.limit, trust.level)
    assert torch.equal(again(batch, prediction).bound, trust(batch, prediction).bound)
    (tmp_path / "trust.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"trust\.safetensors cannot be read"):
        Trust.load(tmp_path)


def test_features_of_an_ensemble_hold_its_spread() -> None:
    batch, prediction = weather(2, 8)
    members = torch.cat([prediction, 3 * prediction], dim=1)
    spread = features(batch, members)[:, 4].exp() - 0.1
    np.testing.assert_allclose(spread.numpy(), (members[:, :, 0].std(dim=1)).numpy(), rtol=1e-4)
    assert features(batch, prediction)[:, 4].unique().numel() == 1


def test_mistakes_are_answered(trust: Trust) -> None:
    batch, prediction = weather(2, 9)
    with pytest.raises(UserError, match="trust was learnt from 10 features; these predictors give 8"):
        trust(batch.map(condition=batch.condition[:, :1]), prediction)
    with pytest.raises(UserError, match="expected a share within"):
        Trust.fit(cells(batch, prediction), cells(batch, prediction), level=90)
    with pytest.raises(DataError, match="no known cells"):
        Trust.fit([], [])


def test_auroc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    score, event = rng.integers(0, 20, (30, 40)), rng.random((30, 40)) < 0.2
    assert auroc(score, event) == pytest.approx(roc_auc_score(event.ravel(), score.ravel()))
    assert np.isnan(auroc(score, event & False))


def test_risk_falls_with_coverage_where_scores_rank_errors() -> None:
    error = np.random.default_rng(0).gamma(1, 1, 10_000)
    coverage, risk = risk_coverage(error, error)
    assert (np.diff(risk) > 0).all()
    assert risk[-1] == pytest.approx(error.mean())
    # Mean of an exponential below its quantile c: 1 + ln(1 − c) (1 − c)/c.
    c = coverage[24]
    assert risk[24] == pytest.approx(1 + np.log(1 - c) * (1 - c) / c, rel=0.05)
    chance = risk_coverage(np.random.default_rng(1).random(10_000), error)[1]
    assert chance[10:] == pytest.approx(error.mean(), rel=0.05)
