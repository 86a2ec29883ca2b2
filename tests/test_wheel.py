"""The installed wheel trains with its own conf/ and with YAML files of the user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.launch import BRIEF, command, own_objective
from helpers.paths import CHECKOUT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip installs it."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    build = ["hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run([sys.executable, "-m", *build], cwd=CHECKOUT, check=True, capture_output=True)
    [wheel] = wheels.iterdir()
    install = ["pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True)
    return target


def test_the_wheel_holds_all_of_conf(installed: Path) -> None:
    shipped = {path.relative_to(CHECKOUT / "conf") for path in (CHECKOUT / "conf").rglob("*.yaml")}
    conf = installed / "ganmnist/conf"
    assert {path.relative_to(conf) for path in conf.rglob("*.yaml")} == shipped
    others = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert others == {"bin", "ganmnist"}


def test_the_script_of_the_wheel_completes(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    words = ["completion", "candidates", "ganmnist train objective=wgan_"]
    command = [installed / "bin/ganmnist", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["objective=wgan_gp"]


def test_the_wheel_trains_anywhere(
    installed: Path, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    own_objective(
        tmp_path,
        "import ganmnist\n"
        "from ganmnist.losses.adversarial import BCE\n\n\n"
        "class Mine(BCE):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        open('origin', 'w').write(ganmnist.__file__)\n",
    )
    done = command("--config-dir", "my_conf", "objective=mine", *BRIEF, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path((tmp_path / "origin").read_text()).parent == installed / "ganmnist"
    [folder] = (tmp_path / "logs/debug").iterdir()
    assert json.loads((folder / "summary.json").read_text())["batches_seen"] == 2
    assert json.loads((folder / "env.json").read_text())["git"] is None
    assert (folder / "report.html").is_file()
    hydra = (folder / ".hydra/hydra.yaml").read_text()
    assert f"path: {installed / 'ganmnist/conf'}" in hydra
    assert str(CHECKOUT / "conf") not in hydra
    assert os.fspath(tmp_path / "my_conf") in hydra
