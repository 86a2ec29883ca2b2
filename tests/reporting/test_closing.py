"""The last lines of a run."""

from pathlib import Path
from typing import Any

import pytest

from ganmnist.reporting.closing import closing_lines

FINISHED: dict[str, Any] = {
    "status": "finished",
    "epochs": 2,
    "batches_seen": 1874,
    "seconds": 86.4,
    "warnings": [],
    "metrics": {
        "best": {"epoch": 1, "val_fid": 2.0, "raw": {"fid": 2.75, "fid_floor": 0.13}},
        "final": {
            "epoch": 2,
            "raw": {"fid": 2.913, "fid_floor": 0.13},
            "ema": {"fid": 2.5, "fid_floor": 0.13},
        },
    },
}


def test_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "logs/a b"
    run.mkdir(parents=True)
    for name in ("report.html", "progress.gif"):
        (run / name).touch()
    assert closing_lines(FINISHED, run) == [
        "Finished after 86 s: 2 epochs, 1,874 batches.",
        "fid 2.91, EMA 2.5 (lower is better; real images: 0.13); 2.75 at the best epoch, 1.",
        "Report:    logs/a b/report.html",
        "Animation: logs/a b/progress.gif",
        "Next:      ganmnist generate run='logs/a b'",
    ]


def test_everything_fits_eight_lines(tmp_path: Path) -> None:
    for name in ("report.html", "progress.gif"):
        (tmp_path / name).touch()
    warnings = ["first\nwarning", "second", "third"]
    lines = closing_lines(FINISHED | {"stand_in_data": True, "warnings": warnings}, tmp_path)
    assert len(lines) <= 8
    assert "Warning: first warning (2 more in train.log)" in lines
    assert any("not MNIST" in line for line in lines)


@pytest.mark.parametrize(
    ("modes", "verdict"),
    [
        (1, "1 of 8 modes: mode collapse. Samples near a mode: 90%."),
        (7, "7 of 8 modes. Samples near a mode: 90%."),
    ],
)
def test_modes_have_a_verdict(modes: int, verdict: str, tmp_path: Path) -> None:
    names = {"modes": modes, "high_quality": 0.9, "real_modes": 8}
    raw = {f"ring8_{name}": value for name, value in names.items()}
    summary = FINISHED | {"metrics": {"final": {"epoch": 2, "raw": raw}}}
    remedy = "ganmnist train experiment=teach_collapse_cured"
    lines = closing_lines(summary, tmp_path, remedy)
    assert verdict in lines
    assert lines[-1].split(maxsplit=1)[1] == remedy


def test_stopped_run_names_the_resume(tmp_path: Path) -> None:
    summary = {"status": "interrupted", "epochs": 0, "batches_seen": 1, "seconds": 7300}
    lines = closing_lines(summary, tmp_path)
    assert lines[0] == "Stopped after 2.0 h: 0 epochs, 1 batch."
    assert "no checkpoint" in lines[-1]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    assert closing_lines(summary, tmp_path)[-1].endswith(f"ganmnist train resume={tmp_path}")
    failed = closing_lines({"status": "failed", "seconds": 200}, tmp_path)
    assert failed[0] == "Failed after 3 min."
