"""Run the tests with another torch, in an environment of its own: `make test-torch TORCH=torch==2.11.0`.

The environment is .venv-torch/<request>, and stays there. The other packages are those of the extra `dev`, at the same
versions. What came of it is written to tests/torch_versions.json, and to README's table of tested versions.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests" / "torch_versions.json"
ASKED = "import json, sys, torch, platform; print(json.dumps([torch.__version__, platform.python_version()]))"


def environment(request: str, torch: list[str]) -> Path:
    """The interpreter of an environment that has this torch; made where it is not there yet."""
    folder = ROOT / ".venv-torch" / re.sub(r"[^A-Za-z0-9.]", "_", request)
    python = folder / "bin" / "python"
    stamp = folder / ".stamp"
    if not stamp.exists():
        print(f"making {folder.relative_to(ROOT)}", flush=True)
        venv.create(folder, with_pip=True)
        with (ROOT / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file)["project"]
        # What dev pins of torch is not meant here; everything else is, so that torch alone is another.
        others = [need for need in project["optional-dependencies"]["dev"] if not need.startswith("torch==")]
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *torch], check=True)
        subprocess.run([*pip, *others], check=True)
        subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True)
        stamp.touch()
    return python


def run(python: Path, options: list[str]) -> dict[str, object]:
    """The counts of a run of the suite, and the tests that failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            python,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--dist",
            "loadgroup",
            f"--junitxml={report}",
            *options,
        ]
        subprocess.run(command, cwd=ROOT, check=False)
        suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314  pytest wrote it just now
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    bad = [
        case
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return {
        "passed": count["tests"] - count["failures"] - count["errors"] - count["skipped"],
        "failed": [f"{case.attrib['classname']}::{case.attrib['name']}" for case in bad],
        "skipped": count["skipped"],
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("torch", nargs="+", help="what pip installs, such as torch==2.11.0")
    parser.add_argument("--no-record", action="store_true", help="do not write torch_versions.json")
    options, for_pytest = parser.parse_known_args(argv)
    python = environment(" ".join(options.torch), options.torch)
    asked = subprocess.run([python, "-c", ASKED], capture_output=True, text=True, check=True)
    version, of_python = json.loads(asked.stdout)
    found = run(python, for_pytest)
    record = {"torch": version, "python": of_python, "date": f"{dt.datetime.now():%Y-%m-%d}"} | found  # noqa: DTZ005
    print(json.dumps(record, indent=1))
    if not options.no_record:
        known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else []
        known = [other for other in known if (other["torch"], other["python"]) != (version, of_python)]
        known.append(record)
        known.sort(key=lambda entry: [int(n) for n in re.findall(r"\d+", entry["torch"])[:3]])
        RECORD.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        subprocess.run([python, ROOT / "tests" / "benchmarks" / "readme.py"], cwd=ROOT, check=True)
    return int(bool(found["failed"]))


if __name__ == "__main__":
    sys.exit(main())
