"""Networks as ONNX files agree with our own inference."""

import json

import numpy as np
import pytest

from geoml.errors import UserError
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.features import FEATURES
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.verdicts import ChannelView
from mcp_experts.train.export import export

REGISTRY = Registry()


def features():
    channels = [ChannelView(synthesize(k_factor_db=k, snr_db=snr, seed=seed)) for seed, (k, snr) in enumerate(CASES)]
    return np.concatenate([look.features for look in channels])


CASES = [(None, 0.0), (None, 30.0), (3.0, 10.0), (12.0, 25.0), (20.0, 60.0)]


@pytest.mark.parametrize("name", [expert.name for expert in REGISTRY.classifiers])
def test_the_file_gives_the_probabilities_of_the_server(name, tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / f"{name}.onnx"
    assert export([name, "--file", str(path)]) == 0
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = features()
    (found,) = session.run(None, {"features": inputs})
    expert = REGISTRY.expert(name)
    assert inputs.shape == (len(CASES), FEATURES)
    assert np.allclose(found, expert.network.probabilities(inputs), atol=1e-5)
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert tuple(json.loads(about["classes"])) == expert.definition.classes
    assert about["weights_sha256"] == expert.card["weights_sha256"]


def test_what_cannot_be_exported_is_said(tmp_path):
    with pytest.raises(UserError, match="no network"):
        export(["ood"])
    with pytest.raises(UserError, match="is not a folder"):
        export(["los", "--file", str(tmp_path / "none" / "los.onnx")])
    with pytest.raises(UserError, match="los"):
        export(["lso"])
