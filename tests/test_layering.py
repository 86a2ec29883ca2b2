"""Layers: which module may import which."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ganmnist

ROOT = Path(ganmnist.__file__).parent
STDLIB = set(sys.stdlib_module_names)
ENTRY_POINTS = {"train", "evaluate", "generate"}


def name_of(path: Path) -> str:
    """ganmnist/data/idx.py is data.idx, ganmnist/data/__init__.py is data."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if "conf" not in path.parts}


def imports(module: str) -> set[str]:
    """Full names of what a module imports, also in functions and under `if TYPE_CHECKING`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
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
    """The modules of this package that a module imports."""
    ours = {name.removeprefix("ganmnist.") for name in imports(module) if "ganmnist." in name}
    assert ours <= MODULES.keys()
    return ours


def importing(*packages: str) -> set[str]:
    return {module for module in MODULES if foreign(module) & set(packages)}


def folder(module: str) -> str:
    """The folder of a module, or its own name at the top level."""
    return module.partition(".")[0]


def test_all_modules_are_found() -> None:
    assert {"gan", "losses.outputs", "train", "networks.dcgan", "data"} <= MODULES.keys()
    assert own("gan") >= {"losses.outputs", "losses.adversarial"}
    assert "torch" in foreign("gan")


@pytest.mark.parametrize("module", [m for m in MODULES if folder(m) == "networks"])
def test_networks_import_torch_and_utils_alone(module: str) -> None:
    assert foreign(module) <= {"torch"}
    assert {folder(name) for name in own(module)} <= {"networks", "utils"}


@pytest.mark.parametrize("module", [m for m in MODULES if folder(m) == "losses"])
def test_losses_import_torch_networks_and_utils_alone(module: str) -> None:
    assert foreign(module) <= {"torch"}
    assert {folder(name) for name in own(module)} <= {"losses", "networks", "utils"}


@pytest.mark.parametrize("module", [m for m in MODULES if folder(m) == "stabilizers"])
def test_stabilizers_import_torch_losses_networks_and_utils_alone(module: str) -> None:
    assert foreign(module) <= {"torch"}
    assert {folder(name) for name in own(module)} <= {"stabilizers", "losses", "networks", "utils"}


def test_schedules_import_nothing() -> None:
    assert foreign("utils.schedules") == own("utils.schedules") == set()


def test_gan_imports_no_architecture_no_family_and_no_data() -> None:
    below = {"losses", "networks", "stabilizers", "utils"}
    assert {folder(name) for name in own("gan")} <= below
    parts = {"base", "initialization", "latents", "sampler"}
    networks = {name.partition(".")[2] for name in own("gan") if folder(name) == "networks"}
    assert networks <= parts


def test_commands_and_runs_alone_import_hydra() -> None:
    allowed = ENTRY_POINTS | {"runs", "commands"}
    assert {folder(module) for module in importing("hydra", "omegaconf")} <= allowed


def test_imported_packages_are_dependencies() -> None:
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    dependencies = {Requirement(line).name.lower() for line in project["dependencies"]}
    providers = packages_distributions()
    for package in {name for module in MODULES for name in foreign(module)}:
        assert dependencies & {provider.lower() for provider in providers[package]}, package


def test_imports_of_modules_form_no_circle() -> None:
    tuple(TopologicalSorter({module: own(module) - {module} for module in MODULES}).static_order())


def test_no_module_imports_a_command() -> None:
    commands = ENTRY_POINTS | {m for m in MODULES if folder(m) == "commands"}
    for module in MODULES.keys() - commands - {"__main__"}:
        assert not own(module) & (commands - {"commands"}), module


@pytest.mark.parametrize("module", ["ganmnist", "ganmnist.runs.command_line", "ganmnist.train"])
def test_command_line_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert not loaded & {"torch", "torchvision", "lightning", "matplotlib"}
