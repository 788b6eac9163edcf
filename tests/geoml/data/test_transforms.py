"""Transforms: exact inverses, statistics independent of chunking, bounded output, and files that say what is wrong."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from geoml.data.curves import TRANSFORMS, Log, ZScore, transform_from_dict
from geoml.data.fields import Batch
from geoml.data.moments import Moments
from geoml.data.transforms import Transforms
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from geoml.models.base import Channels

OPTIONS = {
    "identity": {},
    "log": {"unit": 0.5},
    "log_eps": {"eps": 0.02},
    "fourth_root": {},
    "zscore": {},
    "decibel": {"reference": 1e-3, "floor_db": -120.0, "scale": "zscore"},
    "minmax": {},
}
#: Below this the inverse is exact in absolute terms only: rounding before the curve is undone is of this size.
SMALL = {"log": 0.5, "log_eps": 0.02, "fourth_root": 1e-3, "decibel": 1e-9}


def rates(n: int, seed: int = 0) -> np.ndarray:
    """Values like a rate: many zeros, a long tail."""
    rng = np.random.default_rng(seed)
    return (rng.gamma(0.3, 4.0, n) * (rng.random(n) < 0.4)).astype(np.float32)


def fitted(kind: str, values: np.ndarray | None = None):
    return transform_from_dict({"kind": kind, **OPTIONS[kind]}).fit([rates(5000) if values is None else values])


def grid(shape: tuple[int, ...]) -> Grid:
    return Grid.box({"y": 0, "x": 0}, {"y": shape[0], "x": shape[1]}, 1)


def batch(condition: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None, ids=()) -> Batch:
    def tensor(a):
        return None if a is None else torch.from_numpy(a)

    return Batch(
        tensor(condition), grid(condition.shape[2:]), grid(target.shape[2:]), tensor(target), mask=tensor(mask), ids=ids
    )


def test_every_kind_is_tried() -> None:
    assert set(OPTIONS) == set(TRANSFORMS)


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("module", ["numpy", "torch"])
def test_inverse_is_exact_in_float32(kind: str, module: str) -> None:
    transform = fitted(kind)
    x = np.concatenate([[0.0], np.geomspace(1e-6, 3 * transform.physical.maximum, 2001)]).astype(np.float32)
    given_x = torch.from_numpy(x) if module == "torch" else x
    y = transform.forward(given_x)
    back = transform.inverse(y)
    assert type(back) is type(given_x)
    assert back.dtype == given_x.dtype
    expected = np.maximum(x, 1e-3 * 10**-12) if kind == "decibel" else x
    error = np.abs(np.asarray(back) - expected)
    assert np.all(error <= 1e-5 * (expected + SMALL.get(kind, 1.0)))
    assert not np.any(np.asarray(transform.clipped(y)))


@pytest.mark.parametrize("kind", ["identity", "zscore", "minmax"])
@pytest.mark.parametrize(("mean", "std"), [(280.0, 10.0), (101_325.0, 600.0), (0.0, 3e-4), (-40.0, 5.0)])
def test_inverse_is_exact_for_values_far_from_zero(kind: str, mean: float, std: float) -> None:
    x = np.random.default_rng(0).normal(mean, std, 3000).astype(np.float32)
    transform = fitted(kind, x)
    np.testing.assert_allclose(transform.inverse(transform.forward(x)), x, rtol=1e-5, atol=1e-6 * std)


@pytest.mark.parametrize("kind", TRANSFORMS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_forward_is_increasing_and_inverse_is_bounded(kind: str, data: st.DataObject) -> None:
    transform = fitted(kind)
    values = np.sort(np.array(data.draw(st.lists(st.floats(0, 1e4), min_size=2, max_size=20))))
    y = transform.forward(values)
    assert np.all(np.diff(y) >= 0)
    wild = np.array(data.draw(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20)), dtype=np.float32)
    low, high = transform.bounds
    x = transform.inverse(np.append(wild, [np.inf, -np.inf]))
    assert np.all(x >= low - 1e-5 * abs(low))
    assert np.all(x <= high * (1 + 1e-6))


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_torch_agrees_with_numpy_and_is_differentiable(kind: str) -> None:
    transform = fitted(kind)
    x = rates(200, seed=3) + np.float32(0.01)
    y = torch.from_numpy(transform.forward(x)).requires_grad_()
    np.testing.assert_allclose(transform.forward(torch.from_numpy(x)).numpy(), y.detach().numpy(), rtol=2e-5, atol=1e-5)
    transform.inverse(y).sum().backward()
    step = np.float64(1e-4)
    slope = (
        transform.inverse(transform.forward(x.astype(float)) + step)
        - transform.inverse(transform.forward(x.astype(float)) - step)
    ) / (2 * step)
    np.testing.assert_allclose(y.grad.numpy(), slope, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_gradient_of_wild_output_is_finite(kind: str) -> None:
    transform = fitted(kind)
    y = torch.tensor([1e30, -1e30, 400.0, -400.0, math.inf], requires_grad=True)
    transform.inverse(y).sum().backward()
    assert torch.isfinite(y.grad).all()
    assert transform.clipped(y.detach()).all()


def test_projection_onto_a_physical_limit_is_not_clipping() -> None:
    transform = fitted("log")
    y = np.float32([-0.01, 0.0, 0.5])
    assert transform.inverse(y)[0] == 0
    assert not transform.clipped(y).any()
    assert transform.clipped(np.float32([-5.0, 3.0, np.nan])).all()
    assert np.isnan(transform.inverse(np.float32([np.nan]))[0])


def test_upper_bound_is_headroom_times_the_largest_training_value() -> None:
    transform = Log(headroom=2.5).fit([np.array([0.0, 8.0])])
    assert transform.bounds == (0.0, 20.0)
    assert transform.inverse(np.array([50.0]))[0] == 20.0
    signed = ZScore(headroom=2).fit([np.array([-1.0, 3.0])])
    assert signed.bounds == (-5.0, 7.0)


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=6), shift=st.sampled_from([0.0, 1e4]), seed=st.integers(0, 99))
def test_moments_do_not_depend_on_chunks(cuts: list[int], shift: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=400) + shift
    total = Moments()
    for part in np.split(values, sorted(cuts)):
        total = total.merge(Moments.of(part))
    assert total.count == 400
    assert total.mean == pytest.approx(values.mean(), rel=1e-13, abs=1e-13)
    assert total.std == pytest.approx(values.std(), rel=1e-9)
    assert (total.minimum, total.maximum) == (values.min(), values.max())


def test_standardised_training_values_have_mean_0_and_std_1() -> None:
    for kind in ("zscore", "log_eps", "fourth_root"):
        y = fitted(kind).forward(rates(5000).astype(np.float64))
        assert y.mean() == pytest.approx(0, abs=1e-9)
        assert y.std() == pytest.approx(1, rel=1e-9)
    y = fitted("minmax").forward(rates(5000))
    assert (y.min(), y.max()) == (0, 1)


def test_constant_field_is_shifted_only() -> None:
    transform = ZScore().fit([np.full(10, 7.0)])
    assert transform.forward(np.array([7.0, 8.0])).tolist() == [0.0, 1.0]
    assert transform.bounds == (None, None)
    assert transform.inverse(np.array([0.5])).tolist() == [7.5]


CHANNELS = Channels(condition=("rain", "wind"), target=("rain",))
CONFIG = {"rain": {"kind": "log"}, "default": {"kind": "zscore"}}


def example(n: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    condition = np.stack([rates(n * 12, seed).reshape(n, 3, 4), rng.normal(5, 2, (n, 3, 4))], 1).astype(np.float32)
    target = rates(n * 48, seed + 1).reshape(n, 1, 6, 8)
    mask = rng.random(target.shape) < 0.8
    target[~mask] = np.nan
    return condition, target, mask


def test_fit_is_the_same_however_batches_are_cut() -> None:
    condition, target, mask = example()
    start = Transforms.from_config(CONFIG, CHANNELS)
    whole = start.fit([batch(condition, target, mask)])
    parts = start.fit([batch(condition[i], target[i], mask[i]) for i in (slice(0, 1), slice(1, 4), slice(4, 6))])
    for one, other in zip(whole.condition + whole.target, parts.condition + parts.target, strict=True):
        for name in ("physical", "curved"):
            np.testing.assert_allclose(
                list(getattr(one, name).to_dict().values()), list(getattr(other, name).to_dict().values()), rtol=1e-12
            )
    assert whole.target[0].physical.count == mask.sum()
    assert whole.condition[0].physical.count == 72  # the two channels called rain keep their own statistics


def test_round_trip_of_a_batch_and_of_the_file(tmp_path) -> None:
    condition, target, mask = example()
    transforms = Transforms.from_config(CONFIG, CHANNELS).fit([batch(condition, target, mask)])
    transforms.save(tmp_path / "transform.json")
    again = Transforms.load(tmp_path / "transform.json")
    assert again == transforms
    out = again.forward(batch(condition, target, mask, ids=range(6)))
    assert torch.isfinite(out.target).all()
    assert (out.target[~out.mask] == 0).all()
    assert out.condition[:, 1].std(correction=0).item() == pytest.approx(1, rel=1e-5)
    values, share = again.inverse_target(out.target[:, None])
    assert share == 0
    np.testing.assert_allclose(values[:, 0].numpy()[mask], target[mask], rtol=1e-5, atol=1e-6)
    wild = out.target[:, None].clone()
    wild[0, 0, 0, 0, :2] = 1e9
    assert again.inverse_target(wild)[1] == pytest.approx(2 / target.size)
    assert again.inverse_target(out.target[:, None].bfloat16())[0].dtype == torch.float32
    as_numpy, _ = again.inverse_target(out.target[:, None].numpy().astype(np.float16))
    assert (type(as_numpy), as_numpy.dtype) == (np.ndarray, np.float32)


def test_unexpected_nan_is_named() -> None:
    condition, target, mask = example()
    transforms = Transforms.from_config(CONFIG, CHANNELS).fit([batch(condition, target, mask)])
    target[4, 0, 2, 3], mask[4, 0, 2, 3] = np.nan, True
    bad = batch(condition, target, mask, ids=range(100, 106))
    for act in (transforms.forward, lambda b: transforms.fit([b])):
        with pytest.raises(DataError, match=r"target channel 'rain' of sample 104 is nan at cell \(2, 3\)"):
            act(bad)
    condition[1, 1, 0, 0] = np.inf
    with pytest.raises(DataError, match="condition channel 'wind' of sample 1 is inf"):
        transforms.forward(batch(condition, target, mask))


def test_fit_refuses_what_cannot_be_learned() -> None:
    condition, target, mask = example()
    start = Transforms.from_config(CONFIG, CHANNELS)
    with pytest.raises(DataError, match="nothing can be learned"):
        start.fit([batch(condition, np.zeros_like(target))])
    with pytest.raises(DataError, match="every cell is masked"):
        start.fit([batch(condition, target, np.zeros_like(mask))])
    filled = np.where(mask, target, np.float32(-9999))
    with pytest.raises(DataError, match=r"target channel 'rain'.*-9999.*fill value"):
        start.fit([batch(condition, filled)])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rain": {"kind": "lgo"}, "default": {"kind": "zscore"}}, "did you mean 'log'"),
        ({"rian": {"kind": "log"}, "default": {"kind": "zscore"}}, "did you mean 'rain'"),
        ({"rain": {"kind": "log", "units": 1}, "default": {"kind": "zscore"}}, "did you mean 'unit'"),
        ({"rain": {"kind": "log"}}, "'wind' has no transform"),
        ({"default": {"kind": "log", "unit": 0}}, "must be positive"),
        ({"default": {"kind": "log", "unit": "mm"}}, "expected a finite number"),
        ({"default": {"kind": "zscore", "scale": "minmax"}}, "option of transform zscore 'scale' unknown"),
        ({"default": {"kind": "log", "scale": "zscor"}}, "did you mean 'zscore'"),
        ({"default": "zscore"}, "expected a mapping"),
        ({"default": {"kind": "zscore", "lower": 1, "upper": 0}}, "lower must be the smaller"),
    ],
)
def test_configuration_mistakes_are_answered(config: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Transforms.from_config(config, CHANNELS)


def test_broken_files_are_refused(tmp_path) -> None:
    condition, target, mask = example()
    transforms = Transforms.from_config(CONFIG, CHANNELS).fit([batch(condition, target, mask)])
    good = transforms.to_dict()

    def refuse(change, message: str) -> None:
        record = json.loads(json.dumps(good))
        change(record)
        path = tmp_path / "transform.json"
        path.write_text(json.dumps(record))
        with pytest.raises(DataError, match=message) as caught:
            Transforms.load(path)
        assert str(path) in str(caught.value)

    refuse(lambda r: r["target"][0].update(kind="cube_root"), "'cube_root' unknown")
    refuse(lambda r: r["target"][0]["curved"].update(mean=math.nan), "not a finite number")
    refuse(lambda r: r["target"][0]["curved"].pop("m2"), "must hold exactly")
    refuse(lambda r: r["target"][0]["curved"].update(m2=-1.0), "cannot be those of a set")
    refuse(lambda r: r.pop("static"), "must hold exactly")
    refuse(lambda r: r.update(format=99), "format 99")


def test_hydra_configuration_is_a_mapping_too() -> None:
    config = OmegaConf.create({"rain": {"kind": "log", "unit": 0.5}, "default": {"kind": "zscore"}})
    assert Transforms.from_config(config, CHANNELS).target == (Log(unit=0.5),)


def test_unfitted_transform_says_so() -> None:
    with pytest.raises(ValueError, match="fit it"):
        ZScore().forward(np.zeros(3))


@pytest.mark.parametrize(
    "options", [{"kind": "log"}, {"kind": "log_eps", "scale": "none"}, {"kind": "zscore", "lower": 0}]
)
def test_a_trace_is_none_and_more_is_itself(options):
    rain = np.array([0.0, 0.004, 0.0051, 1.0, 9.0])
    fitted = transform_from_dict({**options, "trace": 0.005}).fit([rain])
    np.testing.assert_allclose(fitted.inverse(fitted.forward(rain)), [0, 0, 0.0051, 1, 9], atol=1e-6)
    back = fitted.inverse(torch.as_tensor(fitted.forward(rain)))
    np.testing.assert_allclose(back.numpy(), [0, 0, 0.0051, 1, 9], atol=1e-6)
    assert transform_from_dict(fitted.to_dict()) == fitted


@pytest.mark.parametrize("options", [{"kind": "log", "trace": -1}, {"kind": "zscore", "trace": 0.1}])
def test_a_trace_needs_a_lower_limit_and_is_not_negative(options):
    with pytest.raises(UserError, match="trace of"):
        transform_from_dict(options)
