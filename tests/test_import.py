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

# From the bottom up: a part may import those of its own layer and of lower ones, and no two files may import each
# other, not even for a type annotation or inside a function.
LAYERS = (
    {"_version", "extras", "pages", "random_state", "shorten"},
    {"losses", "perturbations", "metrics", "head", "models", "data"},
    {"collators", "attacks", "screening"},
    {"config", "evaluation"},
    {"incompatible", "model_card", "start_report", "safeguards", "callbacks"},
    {"trainer"},
    {"lab"},
    {"report"},
    {"commands", "cli"},
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
LIGHT = {"_version", "extras", "pages", "random_state", "shorten", "attacks", "losses", "metrics", "perturbations"}
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
    upwards = {part for part in parts if LAYER_OF[part] > LAYER_OF[part_of(path)]}
    assert not upwards, f"{part_of(path)} imports {sorted(upwards)} of a higher layer"


def files_of(name: str) -> set[Path]:
    """The source files that an imported dotted name runs: a module, or the `__init__` of a folder."""
    parts = name.split(".")[1:]
    for length in range(len(parts), 0, -1):
        place = PACKAGE.joinpath(*parts[:length])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return {path}
    return set()


def circles(arrows: dict[object, set]) -> list[list]:
    """Groups that can be reached from themselves: each pair of them reaches one another."""

    def reached(start: object) -> set:
        seen, todo = set(), [start]
        while todo:
            for target in arrows.get(todo.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    reach = {node: reached(node) for node in arrows}
    return sorted({tuple(sorted(map(str, {node} | {n for n in reach[node] if node in reach.get(n, ())})))
                   for node in arrows if node in reach[node]})  # fmt: skip


def arrows_between_files() -> dict[object, set]:
    arrows = {}
    for path in SOURCES:
        names = [name for name in imported(path, ast.walk(ast.parse(path.read_text()))) if name.startswith("cvreg_")]
        arrows[path] = set().union(*map(files_of, names)) - {path}
    return arrows


def test_no_circle_of_files():
    assert circles({1: {2}, 2: {1}, 3: {1}}) == [("1", "2")]  # the finder itself
    assert circles(arrows_between_files()) == []


def test_no_circle_of_folders():
    arrows: dict[object, set] = {}
    for path, targets in arrows_between_files().items():
        arrows.setdefault(part_of(path), set()).update(part_of(target) for target in targets)
    assert circles({part: targets - {part} for part, targets in arrows.items()}) == []


def test_each_part_of_the_screening_imports_from_those_before_it():
    parts = ["passes", "verdict", "audit", ""]
    folder = PACKAGE / "screening"
    place = {path: parts.index(path.relative_to(folder).parent.parts[0] if path.parent != folder else "")
             for path in SOURCES if folder in path.parents and path.name != "__init__.py"}  # fmt: skip
    assert len(set(place.values())) == len(parts)
    for path, targets in arrows_between_files().items():
        upwards = {target.name for target in targets if place.get(target, 0) > place.get(path, len(parts))}
        assert not upwards, f"{path.relative_to(PACKAGE)} imports {sorted(upwards)}"


def test_few_modules_stand_in_the_corridor():
    assert len(list(PACKAGE.glob("*.py"))) <= 12


@pytest.mark.parametrize("part", sorted(LIGHT))
def test_leaves_do_not_load_transformers_or_trl(part):
    paths = [path for path in SOURCES if part_of(path) == part]
    for path in paths:
        roots = {name.split(".")[0] for name in imported(path, iter(ast.parse(path.read_text()).body))}
        assert roots.isdisjoint({"peft", "transformers", "trl"}), path
