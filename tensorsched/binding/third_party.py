"""Data: optimizers of other packages, found by name, so that nothing is imported for a user who does not have them.

Only their source could be read for most of this (none of it ran on a GPU here):

torchao 0.18.0                      run on a CPU. lr is a 0-dim tensor on the host, one a group, and `step` raises on
                                    anything else. Each parameter's update is compiled with the other numbers as
                                    constants, without a limit on recompiling. The step count is a tensor on the host.
TransformerEngine, commit 04912bf   with capturable=True lr is a float32 tensor on the device, which the kernel reads;
apex, commit 004da4e                betas, eps and weight_decay go to it as numbers. `step` takes a GradScaler itself.
dion, commit 1eb4c5e                lr, and a weight_decay that was given as a tensor, is a 0-dim float32 tensor on
                                    the device that is made at the first step and put into the group, whatever was
                                    there. Its other numbers become tensors on the host at every step. (Before that
                                    commit lr did too, and was a float.)
"""

from __future__ import annotations

from collections.abc import Mapping

from tensorsched.binding.torch_optim import Record

__all__ = ["NAMED"]

_COMPILED = (
    "torchao compiles it into each parameter's update, and would compile anew whenever a float changes"
)
_TORCHAO = Record(
    filled=frozenset({"lr"}),
    tensors_only=dict.fromkeys(("betas[0]", "betas[1]", "eps", "weight_decay"), _COMPILED),
    no_capture="torchao keeps its step count on the host, so a graph would replay today's bias correction for ever",
)
_FUSED_ADAM = Record(
    filled=frozenset({"lr"}),
    baked="its kernel takes lr alone as a tensor, and that with capturable=True",
)
_DION = Record(
    filled=frozenset({"lr", "weight_decay"}),
    baked="dion makes a tensor on the host of it at every step; lr, and a weight_decay that was given as a tensor, are "
    "all that it reads on the device",
    tensor_maker="_sync_hyperparam_tensors",
)

NAMED: Mapping[tuple[str, str], Record] = {
    **{
        ("torchao", name): _TORCHAO
        for name in ("Adam8bit", "Adam4bit", "AdamFp8", "AdamW8bit", "AdamW4bit", "AdamWFp8", "_AdamW")
    },
    ("transformer_engine", "FusedAdam"): _FUSED_ADAM,
    ("apex", "FusedAdam"): _FUSED_ADAM,
    **{("dion", name): _DION for name in ("Muon", "NorMuon", "Dion2", "NorDion2", "Dion3")},
}
"""By the package that a class is from, and its name."""
