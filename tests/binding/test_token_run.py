"""A language model trained by tokens: sequence length and batch size grow, a loader with workers, a resumed run.

The lr of each step is f(tokens), whatever the steps consume; the same run by steps would bend the curve.
"""

from __future__ import annotations

import io
import itertools
from pydoc_data.topics import topics

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

import tensorsched as ts

TOKENS = 60_000
LR = ts.warmup_cosine(3e-3, total=TOKENS, warmup=6_000)
LENGTH = ts.piecewise_constant([16, 32, 64], [40, 80])  # by step, as the batch
BATCH = ts.batch_steps("0:8 20K:16", each=32)


class Windows(Dataset):
    """Windows of a text, cut to the length that comes with the index."""

    def __init__(self) -> None:
        text = "\n\n".join(topics.values())[:100_000].encode("ascii", "replace")
        self.characters = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()

    def __len__(self) -> int:
        return (len(self.characters) - 1) // 64

    def __getitem__(self, at: tuple[int, int]) -> torch.Tensor:
        index, length = at
        return self.characters[64 * index : 64 * index + length + 1]


class Seeded(RandomSampler):
    """Another order in each pass, the same one when a run is resumed."""

    def set_epoch(self, number: int) -> None:
        self.generator = torch.Generator().manual_seed(number)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru, self.head = (
            nn.Embedding(128, 24),
            nn.GRU(24, 48, batch_first=True),
            nn.Linear(48, 128),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.embed(x))[0])


class Training:
    def __init__(self, workers: int = 0) -> None:
        torch.manual_seed(0)
        self.model = Model()
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.sched = ts.attach(self.optimizer, lr=LR, clock=ts.clock("tokens"))
        data = Windows()
        self.batches = ts.BatchSampler(Seeded(data), BATCH, length=LENGTH)
        self.loader = DataLoader(data, batch_sampler=self.batches, num_workers=workers)
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.tokens: list[int] = []

    def run(self, steps: int | None = None) -> Training:
        self.batches.seek(self.sched.step_count)
        for windows in itertools.islice(self.loader, steps):
            if self.sched.position >= TOKENS:
                break
            loss = nn.functional.cross_entropy(
                self.model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten()
            )
            loss.backward()
            self.lrs.append(float(self.optimizer.param_groups[0]["lr"]))
            self.tokens.append(windows[:, 1:].numel())
            self.sched.count(self.tokens[-1])
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(loss.item())
        return self


def weights(run: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def test_a_run_by_tokens_follows_and_is_resumed_to_the_bit():
    whole = Training().run()
    sums = [0, *itertools.accumulate(whole.tokens)]
    assert whole.lrs == pytest.approx([LR(p) for p in sums[:-1]], rel=0, abs=1e-6 * 3e-3)
    assert len(set(whole.tokens)) >= 3, "both plans change what a step consumes"
    assert whole.sched.position >= TOKENS
    assert whole.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    assert sum(whole.losses[-10:]) < 0.8 * sum(whole.losses[:10])

    first, buffer = Training(workers=2).run(50), io.BytesIO()
    torch.save({"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}, buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    second = Training(workers=2)
    second.model.load_state_dict(state["model"])
    second.optimizer.load_state_dict(state["optimizer"])  # it carries step and tokens
    assert (second.sched.position, second.sched.step_count) == (sums[50], 50)
    second.run()
    assert second.lrs == whole.lrs[50:]
    assert torch.equal(weights(second), weights(whole))


def test_the_planned_curve_needs_no_clock_and_is_the_same():
    """The partner: counted by steps, the same plan would be elsewhere."""
    counted = Training().run()
    planned = LR.over(BATCH * LENGTH)
    assert planned.steps == len(counted.lrs)
    assert planned.values().tolist() == pytest.approx(counted.lrs, rel=0, abs=1e-6 * 3e-3)
    by_steps = LR.stretch(planned.steps / TOKENS)
    assert max(abs(by_steps(t) - lr) for t, lr in enumerate(counted.lrs)) > 3e-4
