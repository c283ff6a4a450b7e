"""Build the wheel, install it into a virtual environment of its own and use it there, as `make wheel` does.

An editable install hides what a wheel forgot to pack; this doesn't. The new environment reads torch and numpy from
the environment that runs this script, so that nothing is downloaded twice: a .pth file adds that environment's
site-packages to the search path, and Python does not process .pth files found there, so the editable tensorsched
stays invisible.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Run inside the new environment. -I keeps the current folder and PYTHONPATH out of the search path.
USE = """
import importlib.metadata, pathlib, sys
import torch, tensorsched as ts

package = pathlib.Path(ts.__file__).resolve().parent
assert package.is_relative_to(pathlib.Path(sys.prefix).resolve()), f"imported {package}, not the wheel's"
assert (package / "py.typed").is_file(), "the wheel has no py.typed: type checkers would ignore its hints"
needs = [r for r in importlib.metadata.requires("tensorsched") if "extra ==" not in r]
assert sorted(r.split(">")[0] for r in needs) == ["numpy", "torch"], f"the wheel needs {needs}"

weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weight], lr=0.1)
sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
seen = []
for _ in range(5):
    seen.append(float(optimizer.param_groups[0]["lr"]))
    weight.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
assert seen == [1.0, 0.75, 0.5, 0.25, 0.0], f"the learning rate went {seen}"
print(f"tensorsched {ts.__version__} works from its wheel")
"""


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command and show what it prints; SystemExit with its status if it fails."""
    print("+", *(str(part) for part in command if "\n" not in str(part)), flush=True)
    status = subprocess.run([str(part) for part in command], cwd=cwd, check=False).returncode
    if status:
        sys.exit(status)


def main() -> None:
    """Build through the sdist, so that what the sdist lacks shows too; install; use."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
        (wheel,) = (folder / "dist").glob("*.whl")
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        python = folder / "venv" / "bin" / "python"
        site = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
        run(
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--no-deps",
            "--quiet",
            wheel,
            cwd=folder,
        )
        # Only now: pip must not take the editable install for the one it is asked to make.
        Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        run(python, "-I", "-c", USE, cwd=folder)
        run(
            folder / "venv" / "bin" / "tensorsched",
            "show",
            "cosine(1, 0, steps=100)",
            "--height",
            "4",
            cwd=folder,
        )
        run(python, "-I", "-m", "tensorsched", "bench", "--groups", "1", "--rounds", "2", cwd=folder)


if __name__ == "__main__":
    main()
