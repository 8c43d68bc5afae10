# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a result was made with."""

import json

import torch

from cvreg_trainer import __version__
from cvreg_trainer.report import describe_environment


def test_versions_are_those_in_use() -> None:
    environment = json.loads(json.dumps(describe_environment()))
    assert environment["cvreg_trainer"] == __version__
    assert environment["torch"] == torch.__version__
    assert environment["cpu_count"] >= 1
