"""Trust maps where the error is known: ranking, coverage, novelty, and what they may look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from geoml.cli.compose import compose
from geoml.data.choice import evenly
from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from rainshift.data.archive import archive_of
from rainshift.data.selection import whole_fields
from rainshift.models.spec import ModelSpec
from rainshift.models.trust import Trust, auroc, features, fit_trust, risk_coverage
from rainshift.training import load

COARSE = Grid.latlon(0, 2, 0, 2, 0.25, "node", half_open=True)
FINE = Grid.latlon(0, 2, 0, 2, 0.1)
ERROR = 0.4


def weather(hours: int, seed: int, *, wind: float = 0.0) -> tuple[Batch, torch.Tensor]:
    """Predictions of one mean, some hours rougher than others, with Laplace errors as large as they are rough."""
    rng = np.random.default_rng(seed)
    rough = rng.gamma(2, 0.5, (hours, 1, 1, 1)).clip(0.1, 3)
    noise = ERROR * rough * rng.laplace(size=(hours, 1, *FINE.shape))
    rain = np.maximum(6 + rough * rng.normal(size=(hours, 1, *FINE.shape)), 0)
    tensors = {
        "condition": rng.normal(size=(hours, 2, *COARSE.shape)) + wind,
        "target": rain + noise,
        "mask": rng.random(rain.shape) < 0.9,
        "static": np.zeros((hours, 1, *FINE.shape)),
    }
    tensors["target"][~tensors["mask"]] = np.nan
    fields = {k: torch.from_numpy(v if k == "mask" else v.astype(np.float32)) for k, v in tensors.items()}
    batch = Batch(condition_grid=COARSE, target_grid=FINE, ids=tuple(range(hours)), **fields)
    return batch, torch.from_numpy(rain.astype(np.float32))[:, None]


def roughness(batch: Batch, prediction: torch.Tensor) -> torch.Tensor:
    return prediction[:, 0, 0].std(dim=(1, 2))


def cells(batch: Batch, prediction: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    found, error = features(batch, prediction), (prediction[:, 0, 0] - batch.target[:, 0]).abs()
    return [(found[i].movedim(0, -1)[known], error[i][known]) for i, known in enumerate(batch.mask[:, 0])]


@pytest.fixture(scope="module")
def trust() -> Trust:
    return Trust.fit(cells(*weather(120, 0)), cells(*weather(80, 1)))


def test_expected_error_is_that_of_the_law(trust: Trust) -> None:
    batch, prediction = weather(60, 2)
    said = trust(batch, prediction)
    # |e| of Laplace noise of scale b has the mean b; the square of the mean of √|e| were (π/4) b.
    scale = ERROR * roughness(batch, prediction)
    made = said.expected_error.mean(dim=(1, 2))
    middle = (scale > 0.2) & (scale < 1)
    assert made[middle].numpy() == pytest.approx(scale[middle].numpy(), rel=0.2)
    error = (prediction[:, 0, 0] - batch.target[:, 0]).abs()[batch.mask[:, 0]]
    assert float(said.expected_error.mean()) == pytest.approx(float(error.mean()), rel=0.1)


def test_nothing_to_learn_from_is_told() -> None:
    known, none = cells(*weather(4, 0)), [(torch.zeros(0, 9), torch.zeros(0))]
    for learning, calibration in ((none, known), (known, none), (known, [])):
        with pytest.raises(DataError, match="no known cells"):
            Trust.fit(learning, calibration)


def test_power_law_goes_on_beyond_what_it_was_learnt_from() -> None:
    rng = np.random.default_rng(0)

    def fields(low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = rng.uniform(low, high, (6000, 1)) + 0.05 * rng.normal(size=(6000, 6))
        error = np.exp(0.8 * x[:, 0]) * rng.exponential(size=6000)
        return tuple(torch.from_numpy(part.astype(np.float32)) for part in (x, error))  # type: ignore[return-value]

    fitted = Trust.fit([fields(-2, 1)], [fields(-2, 1)])
    x = torch.linspace(1, 4, 30)[:, None] * torch.ones(6)
    with torch.no_grad():
        said = fitted.network(x).square()
    assert (said.diff() > 0).all()
    assert float((said[-1] / said[0]).log()) == pytest.approx(0.8 * 3, rel=0.25)


def test_ranks_errors_that_the_rain_of_a_cell_knows_nothing_of(trust: Trust) -> None:
    batch, prediction = weather(60, 3)
    known = batch.mask[:, 0]
    error = (prediction[:, 0, 0] - batch.target[:, 0]).abs()[known].numpy()
    large = error > np.quantile(error, 0.9)
    said = trust(batch, prediction)
    perfect = auroc(roughness(batch, prediction)[:, None, None].expand(known.shape)[known].numpy(), large)
    assert perfect > 0.65
    assert auroc(said.expected_error[known].numpy(), large) > perfect - 0.03
    assert auroc(prediction[:, 0, 0][known].numpy(), large) == pytest.approx(0.5, abs=0.05)


def test_bound_holds_where_weather_is_alike_and_novelty_says_where_it_is_not(trust: Trust) -> None:
    batch, prediction = weather(150, 4)
    said, known = trust(batch, prediction), batch.mask[:, 0]
    error = (prediction[:, 0, 0] - batch.target[:, 0]).abs()
    assert float((error <= said.bound)[known].float().mean()) == pytest.approx(0.9, abs=0.02)
    assert float(said.familiar.float().mean()) == pytest.approx(0.9, abs=0.1)
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
    with pytest.raises(UserError, match="the trust map was fitted to 10 features; these predictors give 8"):
        trust(batch.map(condition=batch.condition[:, :1]), prediction)
    with pytest.raises(UserError, match="expected a share within"):
        Trust.fit(cells(batch, prediction), cells(batch, prediction), level=90)
    with pytest.raises(DataError, match="no known cells"):
        Trust.fit([], [])


def test_fitted_in_hours_of_regions_and_drawn_on_another(tmp_path) -> None:
    hours = [f"data.splits_at.{split}.hours=48" for split in ("train", "validation", "test")]
    archive = archive_of(compose("rainshift.conf", "benchmark", [f"archive={tmp_path}", "data.size_deg=1.5", *hours]))
    for name, split in (("europe_west", "validation"), ("caribbean", "validation"), ("west-africa", "test")):
        archive.prepare(name, split)
    bilinear = load(ModelSpec.of("bilinear"), None, archive.channels)
    fitted = fit_trust(bilinear, archive, ["europe_west", "caribbean"], members=1)
    said, error = [], []
    for batch, _ in whole_fields(archive, "west-africa", "test", evenly(48, 48)):
        prediction, _ = bilinear.predict(batch)
        said.append(fitted(batch, prediction).expected_error)
        error.append((prediction[:, 0, 0] - batch.target[:, 0]).abs())
    made, wrong = (torch.cat(part).numpy() for part in (said, error))
    assert auroc(made, wrong > np.quantile(wrong, 0.9)) > 0.8
    _, risk = risk_coverage(made, wrong, points=2)
    assert risk[0] < 0.5 * risk[1]
    with pytest.raises(UserError, match="a trust map is fitted to review hours, and these data have none"):
        fit_trust(bilinear, archive, ["caribbean"], role="review")


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


def test_trust_of_a_model_over_time_is_refused_before_anything_is_predicted():
    class OverTime:
        window = 8

    class Anything:
        def has_role(self, role):
            return True

    with pytest.raises(UserError, match="require a model over single hours"):
        fit_trust(OverTime(), Anything(), ["melanesia"])
