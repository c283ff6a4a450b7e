"""The benchmark of GPUs runs to its end and leaves no part out: a day with a card is not spent on mending it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


kernels = None  # the simulated device, which has no profiler, puts its own counting here


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*[Pp]rofiler")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # as the program itself does
def test_every_part_of_the_benchmark_runs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu  # noqa: PLC0415  its folder holds programs, and is no package

    if kernels is not None:
        monkeypatch.setattr(gpu, "kernels", kernels)
    out = tmp_path / "gpu.json"
    assert gpu.main(["--small", "--groups", "1", "--host-groups", "1", "2", "--out", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    assert list(result) == ["machine", "tensor_lr", "seconds", "frozen", "host", "replay", "training"]
    assert {(r["optimizer"], r["how"]) for r in result["tensor_lr"]} == {
        (kind, how) for kind in ("AdamW", "SGD") for how in ("foreach", "loop", "fused")
    }
    torch_s, ours = result["frozen"]["torch"], result["frozen"]["tensorsched"]
    assert torch_s[-1] / torch_s[0] < 1.5
    assert ours[-1] / ours[0] > 2
    assert result["replay"][0]["kernels"]["constant"] > 0
