"""The notebooks from their scripts: `python -m notebooks.execute` runs each and writes what it shows."""

from pathlib import Path

import jupytext
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))


def executed(script: Path) -> NotebookNode:
    """The notebook of a script, with all outputs; nbclient's CellExecutionError where a cell fails."""
    notebook: NotebookNode = jupytext.read(script)
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"  # instead of one by chance, so that a second run changes no byte
    # Without installed kernels to choose from, Jupyter starts the interpreter that runs this.
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), kernel_name="python3")
    place = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, km=kernel, timeout=240, record_timing=False, resources=place).execute(cleanup_kc=True)
    return notebook


if __name__ == "__main__":
    for script in SCRIPTS:
        print(script.stem)
        jupytext.write(executed(script), script.with_suffix(".ipynb"))
