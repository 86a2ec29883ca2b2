"""scripts/results.py and compare.py: docs/results.md from the results of runs."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.config import configuration
from helpers.paths import CHECKOUT
from hydra.utils import instantiate


def test_every_row_of_a_table_builds_a_gan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    tables = importlib.import_module("compare").TABLES
    assert {name: len(rows) for name, rows in tables.items()} == {
        **{"objectives": 17, "additions": 15, "stacked": 4}
    }
    for table in ("additions", "stacked"):  # other tests build every objective
        for settings in tables[table].values():
            instantiate(configuration("folder=here", "data=digits", *settings).family)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a results folder of its own."""
    spec = importlib.util.spec_from_file_location("results", CHECKOUT / "scripts/results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(module, "DOCS", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def result(name: str, seed: int, data: str = "MNIST", **metrics: float) -> dict[str, Any]:
    prefix = "" if data == "MNIST" else f"{data.lower()}_"
    raw = {f"{prefix}{key}": value for key, value in metrics.items()}
    return {
        "summary": {
            "name": name,
            "status": "finished",
            "data": data,
            "epochs": 20,
            "seconds": 90.0,
            "images_seen": 1_200_000,
            "settings": {"seed": seed},
            "metrics": {"best": {"epoch": 3, "raw": raw}, "final": {"epoch": 20, "raw": raw}},
        },
        "env": {"threads": 1, "command": ["python", "-m", "ganmnist.train", f"seed={seed}"]},
    }


def line(page: str, start: str) -> list[str]:
    [found] = [row for row in page.splitlines() if row.startswith(f"| {start}")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_recipes_have_a_row_per_seed_and_a_mean(results: ModuleType) -> None:
    runs = [result("paper_dcgan", seed, fid=float(4 + seed), fid_floor=0.127) for seed in (0, 1, 2)]
    page = results.render(runs)
    assert line(page, "paper_dcgan | 1")[:4] == ["paper_dcgan", "1", "20", "5.000"]
    assert "`python -m ganmnist.train seed=2`" in page
    assert "over 3 seeds: trained weights 5.00 +- 1.00" in page
    assert "Objectives on" not in page
    assert "Stacked" not in page


def test_objectives_have_means_over_seeds(results: ModuleType) -> None:
    runs = [result("objectives_hinge", s, fid=float(8 + s), coverage=0.5) for s in (0, 1)]
    assert line(results.render(runs), "`hinge`")[1:4] == ["2", "8.50 +- 0.71", "8.50 +- 0.71"]


def test_diverged_runs_are_counted_but_not_averaged(results: ModuleType) -> None:
    runs = [result("objectives_fgan_kl", s, fid=float(8 + s), coverage=0.5) for s in (0, 1, 2)]
    runs[1]["summary"] |= {"status": "failed", "metrics": {}}
    cells = line(results.render(runs), "`fgan_kl`")
    assert cells[1:3] == ["2 of 3, others diverged", "9.00 +- 1.41"]
    runs = [result("objectives_fgan_kl", 0)]
    runs[0]["summary"] |= {"status": "failed", "metrics": {}}
    assert line(results.render(runs), "`fgan_kl`")[1:3] == ["0 of 1, others diverged", ""]


def test_stacked_mnist_has_the_values_of_real_images(results: ModuleType) -> None:
    metrics = {"modes": 876.0, "mode_kl": 0.51234, "real_modes": 1000.0, "real_mode_kl": 0.0246}
    page = results.render([result("stacked_dcgan", 0, "StackedMNIST", **metrics)])
    assert "have 1000 modes and a KL of 0.025" in page
    assert line(page, "dcgan")[2:5] == ["876", "0.512", "1,200,000"]


def test_row_of_diverged_runs_only(results: ModuleType) -> None:
    run = result("stacked_wgan_gp", 0, "StackedMNIST")
    run["summary"] |= {"status": "failed", "metrics": {}}
    assert line(results.render([run]), "wgan_gp")[1:3] == ["0 of 1, others diverged", ""]


def test_results_of_a_run_are_kept_and_rendered(results: ModuleType, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name, content in result("report_mlp", 7, fid=16.0, fid_floor=0.1).items():
        (run / f"{name}.json").write_text(json.dumps(content))
    results.keep(run)
    results.write()
    assert (tmp_path / "results/report_mlp_seed7.json").is_file()
    assert line((tmp_path / "results.md").read_text(), "report_mlp")[1] == "7"
