"""The notebooks run, on less data and in fewer steps than they say."""

import ast
import os
from pathlib import Path

import pytest

from bnnlayers.keras import backend

EXAMPLES = Path(__file__).parent.parent / "examples"
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

CIFAR10 = backend.home() / "datasets"
SMALL = {"epochs": 1, "samples": 200, "width": 8}
RUNS = [
    pytest.param("mnist", {"epochs": 1, "samples": 1000}, id="mnist"),
    pytest.param("guide", {"epochs": 1}, id="guide"),
    pytest.param("binarynet_cifar10", {**SMALL, "dataset": "digits"}, id="binarynet on digits"),
    pytest.param(
        "binarynet_cifar10",
        {**SMALL, "dataset": "cifar10"},
        id="binarynet on CIFAR-10",
        marks=pytest.mark.skipif(
            not list(CIFAR10.glob("cifar-10-batches-py*")), reason=f"needs cifar-10-batches-py in {CIFAR10}"
        ),
    ),
]


def read(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def with_values(source, values):
    """The cell of parameters with other values; every one of them must occur."""
    names = [node.targets[0].id for node in ast.parse(source).body]
    assert set(values) <= set(names)
    return "\n".join([source, *(f"{name} = {value!r}" for name, value in values.items())])


@pytest.mark.parametrize(("name", "values"), RUNS)
def test_notebook_runs(name, values, tmp_path, monkeypatch):
    notebook = read(name)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source = with_values(parameters.source, values)
    # What is tested is this tree, also where another copy is installed.
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLES.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in shown if output.output_type == "error"]
    # The history draws itself.
    assert any("<svg" in output.get("data", {}).get("text/html", "") for output in shown)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_stored_clean(path):
    notebook = read(path.stem)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert {name for name, *_ in (run.values for run in RUNS)} >= {path.stem}
