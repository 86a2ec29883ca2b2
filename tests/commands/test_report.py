"""ganmnist report, and a bare folder in the place of run=FOLDER."""

from pathlib import Path

import pytest
from helpers.launch import BRIEF, launch

from ganmnist import evaluate
from ganmnist.commands import report
from ganmnist.runs.command_line import expand_bare_folder


@pytest.mark.parametrize("form", ["run={}", "{}"])
def test_report_is_drawn_again(
    form: str, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(*BRIEF, f"hydra.run.dir={tmp_path / 'run'}")
    page = tmp_path / "run/report.html"
    before = page.read_bytes()
    page.unlink()
    capsys.readouterr()
    report.main([form.format(tmp_path / "run")])
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("args", "part"), [(["run=nowhere"], "run=nowhere"), ([], "run="), (["a", "b"], "2 arguments")]
)
def test_mistake_gives_one_sentence(
    args: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        report.main(args)
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("ganmnist: ")
    assert error.count("\n") == 1
    assert part in error


def test_bare_folder_is_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert expand_bare_folder(["a b", "which=last"], "evaluate") == ["run='a b'", "which=last"]
    assert expand_bare_folder(["which=last", "a b"], "generate") == ["which=last", "run='a b'"]
    assert expand_bare_folder(["--config-dir", "a b"], "evaluate") == ["--config-dir", "a b"]
    assert expand_bare_folder(["a b"], "train") == ["a b"]
    assert expand_bare_folder(["missing"], "evaluate") == ["missing"]


def test_evaluate_takes_a_bare_folder(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(*BRIEF, f"hydra.run.dir={tmp_path / 'run'}")
    monkeypatch.setattr("sys.argv", ["evaluate", str(tmp_path / "run"), "n=100", "metrics=quick"])
    evaluate.main()
    assert (tmp_path / "run/metrics.json").is_file()
