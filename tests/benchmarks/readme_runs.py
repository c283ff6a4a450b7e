"""Two more sections of README that `make readme` writes: figures of GPUs, and the versions of torch that were tested."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TORCH = HERE.parent / "torch_versions.json"

NO_GPU = (
    "No figure here is from a GPU yet: none was at hand. What this page says of one and marks with † was shown on a\n"
    "simulated device and in the code that is generated for an H100 (`make test-h100-code`, `make test-simulated-gpu`), and\n"
    "was not measured; `make gpu-day` measures all of it on a machine that has one (meant to take under ten minutes).\n"
)
AS_TENSOR = 1.05  # device time with a tensor lr over that with a float, from which README says so


def gpu(results: Path = HERE / "results") -> str:
    """A table for each card that was measured; without one, what that means for the claims on the page."""
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    return "\n".join("\n".join(_card(card)) for card in cards if "gpu" in card.get("machine", {})) or NO_GPU


def _card(result: Mapping[str, Any]) -> Iterator[str]:
    m = result["machine"]
    yield f"On an {m['gpu']} (driver {m['driver']}, CUDA {m['cuda']}, torch {m['torch']}):\n"
    for part, found in result.items():
        if isinstance(found, dict) and "error" in found:
            yield f"- The part `{part}` failed; its error is in the file of results."
    if tests := result.get("tests"):
        yield f"- `tests/gpu`: {tests['printed'][-1].strip('= ')}."
    if isinstance(records := result.get("tensor_lr"), list):
        yield from _tensor_lr(records)
    for record in _records(result, "replay"):
        yield (
            f"- A replayed AdamW step of {record['groups']} groups with scheduled lr, weight decay and beta2 takes "
            f"{record['ratio']:.3f}x\n  of the same with constants; {record['kernels']['scheduled']} kernels, constants "
            f"{record['kernels']['constant']}."
        )
    for record in _records(result, "host"):
        yield (
            f"- Moving the lr of {record['groups']} groups takes the host {record['ratio']:.1f}x less than torch's scheduler "
            "with tensors."
        )
    training = result.get("training", {})
    for name in (key for key in training if key.endswith(", over eager") and key.startswith("captured")):
        yield f"- A small GPT's tokens a second, {name.removesuffix(', over eager')}: {training[name]:.2f}x of eager."
    yield ""


def _tensor_lr(records: list[Mapping[str, Any]]) -> Iterator[str]:
    for way in ("eager_ratio", "replayed_ratio"):
        ratios = sorted(record[way] for record in records if way in record)
        if ratios:
            slower = sum(ratio > AS_TENSOR for ratio in ratios)
            yield (
                f"- A tensor lr over a float one, device time of {way.removesuffix('_ratio')} steps: median "
                f"{ratios[len(ratios) // 2]:.2f}x,\n  {ratios[0]:.2f} to {ratios[-1]:.2f}x; "
                f"slower by over 5 % in {slower} of {len(ratios)} cases."
            )


def _records(result: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    found = result.get(part)
    return found if isinstance(found, list) else []


def versions(record: Path = TORCH) -> str:
    """The table of tested versions."""
    rows = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
    lines = [
        "| torch | Python | passed | failed | skipped | run on |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        failed = len(row["failed"])
        lines.append(
            f"| {row['torch']} | {row['python']} | {row['passed']:,} | {failed} | {row['skipped']} | {row['date']} |"
        )
    return "\n".join(lines) + "\n"
