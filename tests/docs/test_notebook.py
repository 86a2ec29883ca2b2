"""The example notebook runs."""

from pathlib import Path

import nbformat
import pytest
from helpers.config import settings_of
from helpers.launch import BRIEF
from helpers.paths import CHECKOUT
from nbclient import NotebookClient

from ganmnist.train import train


def test_notebook_runs_and_shows_five_images(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings_of(f"folder={tmp_path / 'logs/debug/now'}", *BRIEF))
    notebook = nbformat.read(CHECKOUT / "docs/notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # outputs are not committed
    (tmp_path / "docs").mkdir()
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path / "docs")}}).execute()
    kinds = [
        set(output.data)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type in ("display_data", "execute_result")
    ]
    assert sum("image/png" in kind for kind in kinds) == 5
