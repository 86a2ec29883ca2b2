"""env.json: the CPUs of a run."""

import sys
from pathlib import Path

import pytest
import torch

from ganmnist.runs.environment import cpu_model, describe


def test_cpu_model_is_read_from_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Fast(R)  CPU @ 2.50GHz\n")
    assert cpu_model(cpuinfo) == "Fast(R) CPU @ 2.50GHz"
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(sys, "platform", "linux")
    cpuinfo.write_text("processor\t: 0\nmodel name\t:\nBogoMIPS\t: 50.00\n")
    assert cpu_model(cpuinfo) == "arm64"
    assert cpu_model(tmp_path / "missing") == "arm64"


@pytest.mark.parametrize(
    ("earlier", "cpus"),
    [
        ('{"cpus": ["old"]}', ["old", "new"]),
        ('{"cpus": ["new", "old"]}', ["new", "old"]),
        ('{"cpus": null}', ["new"]),
        ("{}", ["new"]),
        ("damaged", ["new"]),
    ],
)
def test_a_resumed_run_lists_all_its_cpus(
    earlier: str, cpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganmnist.runs.environment.cpu_model", lambda: "new")
    (tmp_path / "env.json").write_text(earlier)
    file = tmp_path / "env.json"
    assert describe(torch.device("cpu"), "mnist", "0", file)["cpus"] == cpus
    assert describe(torch.device("cpu"), "mnist", "0")["cpus"] == ["new"]
