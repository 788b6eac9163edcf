"""`mcp-experts export`: an expert's network as an ONNX file for other runtimes; the server does not need it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoml.errors import UserError, missing_packages
from geoml.runs.files import atomic_path
from mcp_experts.inference.features import FEATURES, names
from mcp_experts.inference.network import MOST_DEVIATIONS
from mcp_experts.inference.registry import Expert, Registry

__all__ = ["export", "onnx_model"]

#: Supported by common runtimes, and has Clip with limits as inputs.
OPSET, IR = 13, 8


def export(arguments: Sequence[str]) -> int:
    """Write `NAME.onnx` for one expert; the file names its features, classes and threshold."""
    parser = argparse.ArgumentParser(
        prog="mcp-experts export",
        description="Write an expert's network as ONNX: features in, calibrated probabilities out.",
    )
    parser.add_argument("expert", help="name of an expert, as los")
    parser.add_argument("--file", type=Path, help="output file (default: NAME.onnx in this folder)")
    flags = parser.parse_args(arguments)
    expert = Registry().expert(flags.expert)
    file = flags.file or Path(f"{expert.name}.onnx")
    if expert.definition.kind != "classifier":
        raise UserError(f"{expert.name} is a {expert.definition.kind} and has no network; export a classifier")
    if not file.parent.is_dir():
        raise UserError(f"--file {file}: {file.parent} is not a folder")
    with missing_packages("onnx"):
        model = onnx_model(expert)
    with atomic_path(file) as partial:
        partial.write_bytes(model.SerializeToString())
    print(file)
    return 0


def onnx_model(expert: Expert) -> Any:
    """`probabilities[n, class]` of `features[n, FEATURES]`, as `mcp_experts.inference.features` computes them."""
    from onnx import TensorProto, checker, helper, numpy_helper

    network = expert.network
    constants = {
        "mean": np.asarray(network.mean, np.float32),
        "scale": np.asarray(network.scale, np.float32),
        "low": np.float32(-MOST_DEVIATIONS),
        "high": np.float32(MOST_DEVIATIONS),
        "temperature": np.float32(network.temperature),
    }
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["hidden_0"]),
    ]
    last = len(network.layers) - 1
    for index, (weight, bias) in enumerate(network.layers):
        constants |= {f"weight_{index}": weight.astype(np.float32), f"bias_{index}": bias.astype(np.float32)}
        product = "logits" if index == last else f"sum_{index}"
        inputs = [f"hidden_{index}", f"weight_{index}", f"bias_{index}"]
        nodes.append(helper.make_node("Gemm", inputs, [product]))
        if index < last:
            nodes.append(helper.make_node("Relu", [product], [f"hidden_{index + 1}"]))
    nodes.append(helper.make_node("Div", ["logits", "temperature"], ["tempered"]))
    nodes.append(helper.make_node("Softmax", ["tempered"], ["probabilities"], axis=-1))
    classes = expert.definition.classes
    graph = helper.make_graph(
        nodes,
        expert.name,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(classes)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, producer_name="mcp-experts", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR
    about = {
        "version": expert.definition.version,
        "classes": json.dumps(classes),
        "features": json.dumps(names()),
        "set_threshold": " ".join(map(str, np.atleast_1d(network.threshold))),
        "weights_sha256": str(expert.card["weights_sha256"]),
    }
    helper.set_model_props(model, about)
    checker.check_model(model)
    return model
