"""The example notebook runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from conftest import CHECKOUT, configuration
from launch import BRIEF
from nbclient import NotebookClient

from ganmnist.train import train


def test_the_notebook_runs(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(configuration(f"folder={tmp_path / 'logs/quick/now'}", *BRIEF))
    notebook = nbformat.read(CHECKOUT / "docs/notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept without pictures
    (tmp_path / "docs").mkdir()  # where notebooks are opened
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path / "docs")}}).execute()
    kinds = [
        set(output.data)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type in ("display_data", "execute_result")
    ]
    assert sum("image/png" in kind for kind in kinds) == 5
