"""env.json: the CPUs of a run."""

from pathlib import Path

import pytest
import torch

from ganmnist.runs.environment import describe


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
    assert describe(torch.device("cpu"), "32-true", "mnist", "0", file)["cpus"] == cpus
    assert describe(torch.device("cpu"), "32-true", "mnist", "0")["cpus"] == ["new"]
