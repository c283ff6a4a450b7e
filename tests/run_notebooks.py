"""Execute every notebook in notebooks/, as `make notebooks` does: a cell that raises fails the run.

The files themselves stay as they are. A notebook committed with outputs is refused, since stored outputs make
every diff unreadable and go stale; so is a folder with no notebook, which would pass by doing nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CELL_TIMEOUT = 120  # seconds


def has_outputs(notebook: nbformat.NotebookNode) -> bool:
    """Whether any code cell was saved with its output or its execution count."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return any(cell.outputs or cell.execution_count is not None for cell in code)


def run(path: Path) -> str | None:
    """Execute one notebook in its own folder; the reason it failed, or None."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    if has_outputs(notebook):
        return "it was saved with outputs: clear them and save again"
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return str(error)
    return None


def main(argv: list[str] | None = None) -> int:
    """Run the notebooks named on the command line, or all of them; the process's exit status."""
    parser = argparse.ArgumentParser(description="Execute notebooks and fail where a cell raises.")
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks (default: all in notebooks/)")
    paths = parser.parse_args(argv).paths or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        print(f"no notebook in {NOTEBOOKS}")
        return 1
    failed = 0
    for path in paths:
        began = time.perf_counter()
        reason = run(path)
        print(f"{path.name}: {'ok' if reason is None else 'FAILED'} ({time.perf_counter() - began:.1f} s)")
        if reason is not None:
            failed += 1
            print(reason)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
