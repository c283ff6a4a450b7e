"""A plan of Muon and AdamW on a GPU: one graph, replayed as eager steps train.

Skipped, and counted as skipped, where there is no CUDA device. Run with `make test-gpu`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import optim

import tensorsched as ts
from tests.gpu.test_cuda import LR, WD, U, captured, fill, parameters, values, with_gradients

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),  # at its first use
]

STEPS = 30


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch._dynamo.reset()


def muon_and_adamw(**frozen: Any) -> tuple[Any, Any, ts.Plan]:
    muon, adamw = with_gradients(optim.Muon(parameters(1))), with_gradients(optim.AdamW(parameters(2)))
    plan = ts.Plan(
        muon=ts.attach(muon, lr=frozen.get("muon", LR)),
        adamw=ts.attach(adamw, lr=frozen.get("adamw", LR), weight_decay=WD),
    )
    return muon, adamw, plan


@pytest.mark.parametrize("how", ["aot_eager", "inductor", "reduce-overhead", "captured"])
def test_one_graph_of_two_optimizers_follows_without_a_synchronisation(how):
    """AdamW within the bound of test_cuda.py. Muon rounds to bfloat16: nearer than a tenth of the way to frozen."""
    options = {"mode": how} if how == "reduce-overhead" else {"backend": how.replace("captured", "aot_eager")}
    muon, adamw, plan = muon_and_adamw()
    step = ts.compile_step(plan, **options)

    def whole() -> None:
        fill(muon)
        fill(adamw)
        step()

    first = 5
    if how == "captured":
        call = captured(whole, warm_up=first).replay
    else:
        call = whole
        for _ in range(first):
            call()
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(STEPS - first):
        call()
    torch.cuda.set_sync_debug_mode("default")
    assert plan.step_counts == {"muon": STEPS, "adamw": STEPS}
    assert adamw.param_groups[0]["lr"] == torch.tensor(LR(STEPS), dtype=torch.float32)

    eager_muon, eager_adamw, eager = muon_and_adamw()
    still_muon, still_adamw, still = muon_and_adamw(muon=LR(9), adamw=LR(9))
    for optimizer in itertools.chain.from_iterable(
        [(eager_muon, eager_adamw, still_muon, still_adamw)] * STEPS
    ):
        fill(optimizer)
        optimizer.step()
    assert eager.step_counts == still.step_counts == plan.step_counts
    limit = 2.0 * 8 * U / (1 - 0.999) * sum(LR(t) for t in range(STEPS)) + 16 * U
    assert (values(adamw) - values(eager_adamw)).abs().max() <= limit
    assert (values(still_adamw) - values(eager_adamw)).abs().max() > 10 * limit, "the control: frozen"
    away = (values(still_muon) - values(eager_muon)).abs().max()
    assert (values(muon) - values(eager_muon)).abs().max() < 0.1 * away
