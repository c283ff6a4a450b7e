"""Execute every notebook in notebooks/, as `make notebooks` does: a cell that raises, or shows something else, fails.

Notebooks are committed with their outputs, so that a reader sees them without running anything. What a cell shows now is
compared with what is stored: text must be the same but for the last digits of numbers; of a PNG only that there is one
(its bytes depend on fonts). A cell tagged `varies` (timings, rounding errors) must show as many outputs. With --write the
outputs are stored anew.
"""

from __future__ import annotations

import argparse
import base64
import io
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CELL_TIMEOUT = 120  # seconds
LARGEST_PNG = 40_000  # bytes: the repository stays small
CLOSE, PIXEL = 1e-6, 0.11  # of numbers in a text, relatively; in an SVG, whose points have one decimal
WAY_OUT = "if that is right, store it: make notebooks ARGS='--write {}', and commit"
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|(?<=0x)[0-9a-f]+")


def shown(cell: nbformat.NotebookNode) -> list[dict[str, str]]:
    """What a code cell shows, a dict of kinds for each output; pieces of one stream as one; warnings left out."""
    found: list[dict[str, str]] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if found and "stream" in found[-1]:
                found[-1]["stream"] += output.text
            else:
                found.append({"stream": output.text})
        elif "data" in output:
            found.append({kind: str(held) for kind, held in kept(output.data).items()})
    return found


def kept(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of an output: a picture once, not again inside the HTML around it."""
    return {kind: held for kind, held in data.items() if kind != "text/html" or "image/svg+xml" not in data}


def differences(stored: nbformat.NotebookNode, now: nbformat.NotebookNode) -> Iterator[str]:
    """What is stored and not shown any more, a sentence for each cell."""
    for number, (before, after) in enumerate(zip(stored.cells, now.cells, strict=True)):
        if before.cell_type != "code":
            continue
        if before.execution_count is None:
            yield f"cell {number} was saved without its output"
            continue
        old, new = shown(before), shown(after)
        if len(old) != len(new):
            yield f"cell {number} shows {len(new)} outputs, {len(old)} are stored"
        elif "varies" not in before.metadata.get("tags", ()):
            yield from (
                f"cell {number}: {why}" for a, b in zip(old, new, strict=True) for why in _apart(a, b)
            )
        yield from (f"cell {number}: {why}" for output in old for why in _too_large(output))


def _apart(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    if old.keys() != new.keys():
        yield f"it shows {sorted(new)}, stored is {sorted(old)}"
        return
    if "image/png" in old:  # and what stands for it: the figure's size
        return
    for kind, text in old.items():
        if not same_text(text, new[kind], PIXEL if "<svg" in text else 0.0):
            yield f"its {kind} is {_short(new[kind])}, stored is {_short(text)}"


def same_text(old: str, new: str, pixel: float = 0.0) -> bool:
    """Whether two texts are the same but for the last digits of numbers, and memory addresses."""
    if _NUMBER.split(old) != _NUMBER.split(new):
        return False
    pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
    return all(a == b or _close(a, b, pixel) for a, b in pairs)


def _close(a: str, b: str, pixel: float) -> bool:
    try:
        return math.isclose(float(a), float(b), rel_tol=CLOSE, abs_tol=pixel)
    except ValueError:  # an address, in hexadecimal
        return True


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")


def _too_large(output: dict[str, str]) -> Iterator[str]:
    size = len(output.get("image/png", "")) * 3 // 4
    if size > LARGEST_PNG:
        yield f"its picture has {size} bytes, more than {LARGEST_PNG}: draw it smaller, or as SVG"


def run(path: Path, *, write: bool = False) -> str | None:
    """Execute one notebook in its own folder; the reason it failed, or None."""
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    now = nbformat.read(path, as_version=4)
    client = NotebookClient(
        now,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return str(error)
    if write:
        store(now, path)
        return None
    found = list(differences(stored, now))
    return "\n".join([*found, WAY_OUT.format(f"notebooks/{path.name}")]) if found else None


def store(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Save a notebook as it was run: without warnings, and without what depends on the machine."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            for output in cell.outputs:
                if "data" in output:
                    output.data = nbformat.from_dict(kept(output.data))
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = small(output.data["image/png"])
    notebook.metadata.pop("language_info", None)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def small(png: str) -> str:
    """A drawing with a palette of 48 colours: a third of its size."""
    drawn = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(48)
    out = io.BytesIO()
    drawn.save(out, format="PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def main(argv: list[str] | None = None) -> int:
    """Run the notebooks named on the command line, or all of them; the process's exit status."""
    parser = argparse.ArgumentParser(
        description="Execute notebooks; fail where a cell raises or shows something else."
    )
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks (default: all in notebooks/)")
    parser.add_argument("--write", action="store_true", help="store the outputs")
    options = parser.parse_args(argv)
    paths = options.paths or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        print(f"no notebook in {NOTEBOOKS}")
        return 1
    failed = 0
    for path in paths:
        began = time.perf_counter()
        reason = run(path, write=options.write)
        print(f"{path.name}: {'ok' if reason is None else 'FAILED'} ({time.perf_counter() - began:.1f} s)")
        if reason is not None:
            failed += 1
            print(reason)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
