"""docs/tutorial.ipynb, executed: `python -m tests.tutorial` (make tutorial) writes its outputs into it.

executed(nbformat.read(NOTEBOOK, 4))       # a copy with new outputs; raises CellExecutionError where a cell fails
"""

import copy
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "tutorial.ipynb"
SECONDS = 300  # for a cell, on a busy machine; the slowest takes ten on a quiet one
# One thread as in the tests; neither progress bars nor tqdm's remark on ipywidgets, which are no result.
SETTINGS = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
# Without times, and with what a cell prints in one piece, the notebook comes out the same each time.
HOW = {
    "timeout": SECONDS,
    "record_timing": False,
    "coalesce_streams": True,
    "extra_arguments": ["--IPKernelApp.log_level=ERROR"],
}


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with new outputs, from a kernel in docs/, without times and without what belongs to this machine.

    What the kernel keeps for itself (connections, history) lies in a temporary folder.
    """
    notebook = copy.deepcopy(notebook)
    with tempfile.TemporaryDirectory() as folder:
        own = {name: folder for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
        with patch.dict(os.environ, SETTINGS | own):
            NotebookClient(notebook, kernel_name="python3", **HOW).execute(cwd=str(NOTEBOOK.parent))
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(nbformat.read(NOTEBOOK, as_version=4)), NOTEBOOK)
    print(f"executed: {os.path.relpath(NOTEBOOK)}, {NOTEBOOK.stat().st_size / 1e6:.2f} MB")
