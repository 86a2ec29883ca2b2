"""The house: who may know whom."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ganmnist

ROOT = Path(ganmnist.__file__).parent
STDLIB = set(sys.stdlib_module_names)
ENTRY_POINTS = {"train", "evaluate", "generate"}


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`, which nothing runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from statements(node)


def name_of(path: Path) -> str:
    """ganmnist/data/idx.py is data.idx, ganmnist/data/__init__.py is data."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if "conf" not in path.parts}


def imports(module: str) -> set[str]:
    """Full names of what a module imports, also inside its functions."""
    found: set[str] = set()
    for node in statements(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = {name for name in names if name.removeprefix("ganmnist.") in MODULES}
            found |= ours or {node.module}
    return found


def foreign(module: str) -> set[str]:
    """The installed packages that a module imports."""
    return {name.partition(".")[0] for name in imports(module)} - STDLIB - {"ganmnist"}


def own(module: str) -> set[str]:
    """The modules of ours that a module imports."""
    ours = {name.removeprefix("ganmnist.") for name in imports(module) if "ganmnist." in name}
    assert ours <= MODULES.keys()
    return ours


def importing(*packages: str) -> set[str]:
    return {module for module in MODULES if foreign(module) & set(packages)}


def unit(module: str) -> str:
    """A module, or the folder that it is in."""
    return module.partition(".")[0]


def test_all_modules_are_found() -> None:
    assert {"gan", "duel", "train", "networks.dcgan", "data", "data.datamodule"} <= MODULES.keys()
    assert own("gan") >= {"duel", "objectives"}
    assert "torch" in foreign("gan")


@pytest.mark.parametrize("module", [m for m in MODULES if unit(m) == "networks"])
def test_networks_import_torch_alone(module: str) -> None:
    assert foreign(module) <= {"torch"}
    assert {unit(name) for name in own(module)} <= {"networks", "schedules"}


def test_duel_imports_torch_alone() -> None:
    assert foreign("duel") == {"torch"}
    assert own("duel") == set()


def test_objectives_know_the_duel_alone() -> None:
    assert foreign("objectives") == {"torch"}
    assert own("objectives") == {"duel"}


def test_penalties_know_the_duel_and_schedules() -> None:
    assert foreign("regularizers") == {"torch"}
    assert own("regularizers") == {"duel", "schedules"}


def test_schedules_know_nothing() -> None:
    assert foreign("schedules") == own("schedules") == set()


def test_the_gan_knows_no_network_and_no_data() -> None:
    assert own("gan") <= {
        *("duel", "ema", "errors", "initialization", "objectives", "passes", "pixels", "rng")
    }
    tree = ast.parse(MODULES["gan"].read_text())
    froms = {node.module: node.names for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert [alias.name for alias in froms["ganmnist.objectives"]] == ["Objective"]


def test_hydra_is_known_to_entry_points() -> None:
    serving = {"cli", "resume", "sweep", "config", "paths"}
    assert importing("hydra", "omegaconf") <= ENTRY_POINTS | serving


def test_what_is_imported_is_asked_for() -> None:
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    asked = {Requirement(line).name.lower() for line in project["dependencies"]}
    providers = packages_distributions()
    for package in {name for module in MODULES for name in foreign(module)}:
        assert asked & {provider.lower() for provider in providers[package]}, package


def test_lightning_is_known_above_the_mathematics() -> None:
    knowing = {unit(module) for module in importing("lightning", "pytorch_lightning")}
    below = {"gan", "data", "callbacks", "loggers", "devices", "environment", "cli"}
    assert knowing <= ENTRY_POINTS | below


def test_imports_go_down() -> None:
    graph = {unit(module): set[str]() for module in MODULES}
    for module in MODULES:
        graph[unit(module)] |= {unit(name) for name in own(module)} - {unit(module)}
    tuple(TopologicalSorter(graph).static_order())  # raises where imports run in a circle
    assert not any(ENTRY_POINTS & below for below in graph.values())


def test_modules_of_a_folder_import_in_no_circle() -> None:
    tuple(TopologicalSorter({module: own(module) - {module} for module in MODULES}).static_order())


@pytest.mark.parametrize("module", ["ganmnist", "ganmnist.cli", "ganmnist.train"])
def test_what_answers_mistakes_does_not_wait_for_torch(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert not loaded & {"torch", "torchvision", "lightning", "matplotlib"}
