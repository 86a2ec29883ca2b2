"""Every run gets a new folder, which its child processes share."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.launch import BRIEF, launch

from ganmnist.runs.folders import create_unique, slug, unique_dir


def test_processes_that_start_together_get_different_folders(tmp_path: Path) -> None:
    script = (
        "from ganmnist.runs.folders import unique_dir\n"
        "print(unique_dir('logs/now'), unique_dir('logs/now'))"
    )
    words = [sys.executable, "-c", script]
    pipe = {"stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    processes = [subprocess.Popen(words, **pipe) for _ in range(4)]
    names = [process.communicate()[0].split() for process in processes]
    assert all(first == again for first, again in names)
    expected = {"logs/now", "logs/now_2", "logs/now_3", "logs/now_4"}
    assert {first for first, _ in names} == expected
    assert {f"logs/{path.name}" for path in (tmp_path / "logs").iterdir()} == expected


def test_child_processes_share_the_folder(tmp_path: Path) -> None:
    """Ranks, and the workers of a launcher, which compose the configuration again."""
    script = (
        "import subprocess, sys\nfrom ganmnist.runs.folders import unique_dir\n"
        "print(unique_dir('logs/now'), flush=True)\n"
        "sys.argv[1:] or subprocess.run([sys.executable, *sys.argv, 'child'], check=True)"
    )
    (tmp_path / "script.py").write_text(script)
    words = [sys.executable, "script.py"]
    for folder in ("logs/now", "logs/now_2"):
        output = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True).stdout
        assert output.split() == [folder] * 2


def test_each_thread_creates_another_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        names = [*pool.map(create_unique, [str(tmp_path / "run")] * 64)]
    assert len({*names}) == 64
    assert all(Path(folder).is_dir() for folder in names)


def test_existing_file_counts_as_existing_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert unique_dir(str(tmp_path / "run")) == f"{tmp_path / 'run'}_2"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0_lr=0.001,model=mlp", "0_lr=0.001,model=mlp"),
        ("1_model.generator.widths=[64, 32]", "1_model.generator.widths=-64,-32"),
        ("2_data.root=/a/b c", "2_data.root=-a-b-c"),
        ("3_" + "x" * 200, "3_" + "x" * 118),
    ],
)
def test_slug_is_one_folder_name(text: str, name: str) -> None:
    assert slug(text) == name


def test_refused_run_leaves_no_folder(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = [word for word in BRIEF if not word.startswith("hydra")]
    with pytest.raises(SystemExit) as leaving:
        launch(*wrong, "model.generator.strides=[1,2,2,1]")
    assert leaving.value.code == 2
    assert not (tmp_path / "logs").exists()


def test_refused_run_keeps_the_files_of_its_folder(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SystemExit):
        launch(*BRIEF, "model.generator.strides=[1,2,2,1]", f"hydra.run.dir={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
