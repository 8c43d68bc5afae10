# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The lazy top level, and the order of the package's layers: who may import whom, read from the sources."""

import ast
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cvreg_trainer


pytestmark = pytest.mark.lowest
PACKAGE = Path(cvreg_trainer.__file__).parent
HEAVY = {"accelerate", "datasets", "peft", "torch", "transformers", "trl"}

# A module may import modules of its own layer and of lower ones. Whatever is not named here lies in between.
LEAVES = {"_version", "attacks", "kernels", "losses", "metrics", "perturbations", "random_state", "rows"}
LEAVES |= {"shorten", "whole_words"}
BETWEEN = 1
LAYER_OF = (
    dict.fromkeys(LEAVES, 0)
    | dict.fromkeys({"callbacks", "experiments", "start_report", "trainer"}, BETWEEN + 1)
    | dict.fromkeys({"cli", "commands"}, BETWEEN + 2)
)
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    """The top-level module or folder of the package that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def absolute(path: Path, node: ast.ImportFrom) -> str:
    """The dotted name an import statement refers to, with relative imports resolved."""
    if not node.level:
        return node.module or ""
    folders = ("cvreg_trainer", *path.relative_to(PACKAGE).parent.parts)
    base = folders[: len(folders) - node.level + 1]
    return ".".join([*base, *(node.module or "").split(".")]).rstrip(".")


def imported(path: Path, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Every dotted name that the import statements among the nodes name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{absolute(path, node)}.{alias.name}" for alias in node.names)


def test_importing_the_package_loads_no_heavy_library():
    code = "import cvreg_trainer, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cvreg_trainer" in run.stdout.split()
    assert HEAVY.isdisjoint(run.stdout.split())


def test_a_kernel_of_bitsandbytes_that_is_not_fetched_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "No module named 'kernels'")
    log.warning("Another kernel failed.")
    assert [record.message for record in caplog.records] == ["Another kernel failed."]


@pytest.mark.slow
def test_importing_the_trainer_prints_nothing() -> None:
    code = "from cvreg_trainer import CrossViewDefenseTrainer"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout + run.stderr == ""


@pytest.mark.parametrize("name", cvreg_trainer.__all__)
def test_every_export_resolves_to_an_object_of_its_name(name):
    value = getattr(cvreg_trainer, name)
    assert getattr(value, "__name__", name) == name
    assert name in dir(cvreg_trainer)


def test_what_type_checkers_see_is_what_is_exported():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(cvreg_trainer.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'CrossViewTrainer'"):
        cvreg_trainer.CrossViewTrainer  # noqa: B018


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upwards(path):
    own = [name.split(".") for name in imported(path, ast.walk(ast.parse(path.read_text())))]
    parts = {name[1] for name in own if name[0] == "cvreg_trainer" and len(name) > 1}
    upwards = {part for part in parts if LAYER_OF.get(part, BETWEEN) > LAYER_OF.get(part_of(path), BETWEEN)}
    assert not upwards, f"{part_of(path)} imports {sorted(upwards)} of a higher layer"


@pytest.mark.parametrize("part", sorted(LEAVES))
def test_leaves_do_not_load_transformers_or_trl(part):
    paths = [path for path in SOURCES if part_of(path) == part]
    for path in paths:
        roots = {name.split(".")[0] for name in imported(path, iter(ast.parse(path.read_text()).body))}
        assert roots.isdisjoint({"peft", "transformers", "trl"}), path
