"""README's picture: `sched.plot()` of the loop that README shows, in mid-run. `make readme` writes it.

SVG with its letters as text and nothing that changes from run to run.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from torch import nn

import tensorsched as ts

PICTURE = Path(__file__).resolve().parents[2] / "notebooks" / "schedule.svg"
NOW = 6_000


def draw(path: Path = PICTURE) -> None:
    """Write the picture."""
    mpl.use("agg")
    lr = ts.linear(0.0, 3e-4, steps=500) >> ts.cosine(3e-4, 3e-5, steps=19_500)
    optimizer = torch.optim.AdamW(nn.Linear(2, 1).parameters())
    sched = ts.attach(optimizer, lr=lr, weight_decay=ts.linear(0.1, 0.01, steps=20_000))
    sched.seek(NOW)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tensorsched"}):
        figure = sched.plot()[0].figure
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    draw()
