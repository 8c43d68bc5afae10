# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The options: their defaults, their ways in (code, command line, YAML) and what is refused."""

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import HfArgumentParser
from trl import TrlParser

from cvreg_trainer import CrossViewDefenseConfig


def test_the_papers_terms_are_off_until_a_lambda_is_passed(tmp_path: Path) -> None:
    args = CrossViewDefenseConfig(str(tmp_path), bf16=False)
    assert (args.lambda_patch, args.lambda_discrepancy, args.lambda_entropy) == (0, 0, 0)
    assert (args.entropy_threshold, args.patch_area_min, args.patch_area_max) == (0.2, 0.01, 0.05)
    assert args.patch_operations == ["mask", "noise", "shuffle"] and args.max_length == "auto"
    assert not args.uses_cross_view_loss and args.lambda_scale(0, 100) == 1
    for name in ("lambda_patch", "lambda_discrepancy", "lambda_entropy"):
        both = CrossViewDefenseConfig(str(tmp_path), bf16=False, **{name: 0.5})
        assert both.uses_cross_view_loss and both.is_screened


def test_command_line(tmp_path: Path) -> None:
    line = f"--output_dir {tmp_path} --bf16 False --lambda_patch 0.2 --feature_layer -2 --max_length 512"
    line += " --patch_operations mask noise --lambda_warmup_steps 0.25"
    (args,) = HfArgumentParser(CrossViewDefenseConfig).parse_args_into_dataclasses(line.split())
    assert (args.lambda_patch, args.feature_layer, args.max_length) == (0.2, -2, 512)
    assert args.patch_operations == ["mask", "noise"] and args.lambda_scale(0, 8) == 0.5
    line = f"--output_dir {tmp_path} --bf16 False --feature_layer model.layers.3 --max_length none"
    (args,) = HfArgumentParser(CrossViewDefenseConfig).parse_args_into_dataclasses(line.split())
    assert args.feature_layer == "model.layers.3" and args.max_length is None


def test_help_renders(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        HfArgumentParser(CrossViewDefenseConfig).parse_args_into_dataclasses(["--help"])
    assert "--lambda_discrepancy" in capsys.readouterr().out


def test_yaml(tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "bf16": False, "lambda_entropy": 0.0, "patch_operations": ["shuffle"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    (args,) = TrlParser(CrossViewDefenseConfig).parse_args_and_config(["--config", str(tmp_path / "config.yaml")])
    assert args.lambda_entropy == 0 and args.patch_operations == ["shuffle"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lambda_patch": -0.1}, r"`lambda_patch` must be 0 .*got -0.1"),
        ({"lambda_discrepancy": float("nan")}, "`lambda_discrepancy` must be 0 .*got nan"),
        ({"lambda_entropy": "0.1"}, "`lambda_entropy` must be 0 .*got '0.1'"),
        ({"entropy_threshold": -1}, "`entropy_threshold` must be 0 or more, in nats, got -1"),
        ({"lambda_warmup_steps": -1}, "`lambda_warmup_steps` must be .*got -1"),
        ({"patch_area_min": 0}, "`patch_area_min` must be a share of the image.*got 0"),
        ({"patch_area_max": 1.5}, "`patch_area_max` must be a share of the image.*got 1.5"),
        ({"patch_area_min": 0.2, "patch_area_max": 0.1}, r"`patch_area_min` \(0.2\) is larger than"),
        (
            {"patch_operations": ["blur"]},
            r"`patch_operations` must name one or more of mask, noise, shuffle, got \['blur'",
        ),
        ({"patch_operations": []}, r"`patch_operations` must name one or more of .*got \[\]"),
        ({"feature_pooling": "max"}, "`feature_pooling` must be one of mean, last, got 'max'"),
        ({"feature_layer": 1.5}, "`feature_layer` must be a layer index or .*got 1.5"),
        ({"max_length": "long"}, "`max_length` must be an integer, None or 'auto', got 'long'"),
        ({"screening": "relabel"}, "`screening` must be one of off, drop, report, got 'relabel'"),
        ({"on_bad_row": "ignore"}, "`on_bad_row` must be one of raise, skip, got 'ignore'"),
        ({"screening_epochs": 0}, "`screening_epochs` must be a number of epochs above 0, or None, got 0"),
        ({"screening_epochs": "1"}, "`screening_epochs` must be .*got '1'"),
        ({"screening_rows": 199}, "`screening_rows` must be a whole number of rows, 200 or more.*got 199"),
        ({"screening_rows": 500.5}, "`screening_rows` must be a whole number of rows, 200 or more.*got 500.5"),
        ({"screening_cap": 0}, "`screening_cap` must be a share of the rows.*got 0"),
        ({"screening_fdr": 0}, "`screening_fdr` must be a share of the findings.*got 0"),
        ({"screening_cap": 1.01}, "`screening_cap` must be a share of the rows.*got 1.01"),
        (
            {"screening": "drop", "screening_epochs": 2, "num_train_epochs": 2},
            r"`screening_epochs` \(2\) leaves nothing of the training \(`num_train_epochs=2`\).* Lower it",
        ),
    ],
)
def test_bad_values_are_refused_with_option_value_and_remedy(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CrossViewDefenseConfig(str(tmp_path), bf16=False, **settings)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(0, [1, 1, 1]), (2, [0.5, 1, 1]), (0.4, [0.25, 0.5, 1]), (20, [0.05, 0.1, 0.5])],
)
def test_lambda_warmup(tmp_path: Path, warmup: float, expected: list[float]) -> None:
    args = CrossViewDefenseConfig(str(tmp_path), bf16=False, lambda_warmup_steps=warmup)
    assert [args.lambda_scale(step, 10) for step in (0, 1, 9)] == pytest.approx(expected)


def test_screening_is_the_default(tmp_path: Path) -> None:
    args = CrossViewDefenseConfig(str(tmp_path), bf16=False)
    assert (
        (args.screening, args.screening_epochs, args.screening_cap) == ("drop", None, 0.3)
        and args.screening_fdr == 0.01
        and args.is_screened
    )
    # A warm-up as long as the training harms nobody while screening is off
    off = CrossViewDefenseConfig(str(tmp_path), bf16=False, screening="off", screening_epochs=9)
    assert off.screening_epochs == 9 and not off.is_screened


def test_screening_on_the_command_line(tmp_path: Path) -> None:
    line = f"--output_dir {tmp_path} --bf16 False --screening drop --screening_epochs 0.5 --screening_cap 0.1"
    (args,) = HfArgumentParser(CrossViewDefenseConfig).parse_args_into_dataclasses(line.split())
    assert (args.screening, args.screening_epochs, args.screening_cap) == ("drop", 0.5, 0.1) and args.is_screened


def test_recommended_is_the_default(tmp_path: Path) -> None:
    args = CrossViewDefenseConfig.recommended(str(tmp_path), bf16=False, learning_rate=3e-4)
    assert args.is_screened and not args.uses_cross_view_loss and args.learning_rate == 3e-4
    assert args.output_dir == str(tmp_path)
    both = CrossViewDefenseConfig.recommended(str(tmp_path), bf16=False, lambda_patch=0.1, screening_cap=0.2)
    assert both.is_screened and both.uses_cross_view_loss and (both.lambda_discrepancy, both.screening_cap) == (0, 0.2)
    off = CrossViewDefenseConfig.recommended(str(tmp_path), bf16=False, screening="off")
    assert not off.is_screened and not off.uses_cross_view_loss


@pytest.mark.parametrize("later", [False, True])
def test_a_token_is_not_pickled_but_copied(tmp_path: Path, later: bool) -> None:
    """`Trainer` pickles its arguments to `training_args.bin`, and pushes the file."""
    args = CrossViewDefenseConfig(str(tmp_path), use_cpu=True, hub_token=None if later else "hf_of_nobody")
    if later:
        args.set_push_to_hub("someone/model", token="hf_of_nobody")
    copies = [copy.copy(args), copy.deepcopy(args), dataclasses.replace(args)]
    for given in (args, *copies):
        assert given.hub_token == "hf_of_nobody"
        content = pickle.dumps(given)
        assert b"hf_of_nobody" not in content
        assert pickle.loads(content) == dataclasses.replace(given, hub_token=None)
