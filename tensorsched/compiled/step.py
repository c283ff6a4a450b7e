"""The compiled step as users call it: what is compiled, and when it is rebuilt.

The compiled function reads and writes its tensors by address, so that a CUDA graph of it needs no copies. The first
step runs eagerly: it makes the optimizer's state (momentum buffers) as torch does.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn, Protocol

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from tensorsched.binding.attachment import Attachment
from tensorsched.compiled.graph_mode import GraphMode, enter
from tensorsched.compiled.supported import check_supported, refusal
from tensorsched.compiled.trace import NAMES, update_function

__all__ = ["CompiledStep", "compile_step"]

_FUSION_ATTEMPTS, _NEVER = 1, 1 << 62
_OWN = re.compile(rf"(?:[LG]\['|G\[)?(?:{'|'.join(NAMES)})\b")


class Several(Protocol):
    """Several attachments as one run: a `ts.Plan`, which stands above this part of the house."""

    @property
    def attachments(self) -> Mapping[str, Attachment]:
        """Each by its name, in the order in which their optimizers step."""


def compile_step(sched: Attachment | Several, **torch_compile_options: Any) -> CompiledStep:
    """Compile table look-up, every scheduled hyperparameter and the optimizer's update into one graph.

    For Adadelta, Adagrad, Adam, AdamW, Adamax, ASGD, Muon, NAdam, RAdam, RMSprop and SGD of torch, any of their
    hyperparameters, and with FSDP2. The optimizer's hooks run around the graph, and a value that somebody else wrote is
    an error before it. Eager `optimizer.step()` calls may come in between; they cost more then. In the graph all
    hyperparameters are float32, bias corrections too: parameters differ from eager steps' in the last bits. A scheduled
    momentum of exactly 0 is refused.

    *Your own torch.compile* of a train step may call the CompiledStep, which is traced into your graph; with
    `torch.func.grad` in the place of `backward()` forward, backward and step are one graph. The optimizer's hooks do
    not run then. It may also call `optimizer.step()` if the values are in tensor slots (`attach(..., resident=True)`;
    floats would recompile); the hooks, which check and advance, then run between your graphs. Make the optimizer's
    state first: torch.compile looks at the state of each group's first parameter only.

    *Your own torch.cuda.graph* may capture the CompiledStep, after two calls of it, or `optimizer.step()` if every slot
    is a tensor slot; each replay advances the step counter on the device. A capture that would freeze a value, or leave
    out a parameter without a gradient, is refused and named. torch's graph knows nothing of us: capture again after
    `add_param_group` and `load_state_dict`. (The CompiledStep itself notices.)

    Args:
        sched: from `attach`, with advance="auto"; or a `ts.Plan`, whose optimizers all step in the one graph.
        **torch_compile_options: for `torch.compile`: backend, mode ("reduce-overhead" for CUDA graphs), options,
            dynamic; fullgraph is always True.

    Returns:
        A CompiledStep: call it instead of `optimizer.step()`, or of all of them.

    Raises:
        BindingError: an optimizer cannot be one graph (fused, Adafactor, LBFGS, unknown types), or several are on
            several devices; the message has the reason and the alternative. Nothing has changed.

    May synchronise, as `attach`: it makes tensors of float slots. Columns of the table that are shared, because their
    schedules were equal, are rewritten together; `attach(..., capacity=steps)` says how far rewritten schedules may
    reach while a graph reads the table.

    Example:
        >>> import torch, tensorsched as ts
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = torch.optim.AdamW([weight])
        >>> sched = ts.attach(optimizer, lr=ts.linear(0.1, 0.0, steps=10))
        >>> step = ts.compile_step(sched, backend="aot_eager")
        >>> weight.grad = torch.ones(3)
        >>> step(), step(), sched.step_count, round(sched.value("lr").item(), 6)
        (None, None, 2, 0.08)
    """
    return CompiledStep(sched, torch_compile_options)


class CompiledStep:
    """The step of an optimizer, or of several, as one compiled graph; made by `compile_step`, called instead of theirs.

    The first call steps eagerly, which makes the optimizer's state, and so does the first one after a parameter got
    its first gradient; the next one compiles. So do `add_param_group` and `load_state_dict`; `sched.seek` and
    `sched.rewrite` do not. A call does not synchronise.

    Inside a function that you compile yourself, a call is traced into your graph: see `compile_step`. For mixed
    precision pass it to GradScaler wherever it wants the optimizer, `scaler.unscale_(step)` included:
    `scaler.step(step)` decides on the device whether a step is skipped, and reads nothing on the host. Several
    optimizers then skip together.

    Attributes:
        sched: what it was made of.
        optimizers: what it steps, in order.

    Example:
        >>> import torch, tensorsched as ts
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = torch.optim.SGD([weight], lr=0.5)
        >>> step = ts.compile_step(ts.attach(optimizer, lr=ts.linear(0.5, 0.25, steps=2)), backend="aot_eager")
        >>> weight.grad = torch.ones(3)
        >>> step(), step(), optimizer.param_groups[0]["lr"].item()
        (None, None, 0.25)
        >>> step.release(), optimizer.param_groups[0]["lr"]
        (None, 0.25)
    """

    # GradScaler hands found_inf and the scale to an optimizer that says so, and reads nothing on the host.
    _step_supports_amp_scaling = True
    _compiled: Callable[..., bool]
    _update: Callable[..., bool]

    def __init__(self, sched: Attachment | Several, torch_compile_options: Mapping[str, Any]) -> None:
        self.sched = sched
        self._scheds = _attachments(sched)
        check_supported(self._scheds)
        self.optimizers = tuple(each.optimizer for each in self._scheds)
        self._torch_compile = dict(torch_compile_options)
        self._released = False
        for each in self._scheds:
            enter(each).users.add(self)
        self._build()

    def __call__(self, closure: None = None) -> None:
        """One optimizer step, and the schedule's next values. Does not synchronise.

        Args:
            closure: only for the error that says that there is none.

        Raises:
            BindingError: there is a closure, the schedule is detached, or something else wrote to a slot. Nothing has
                changed.
        """
        if closure is not None:
            raise refusal(
                "a compiled step takes no closure: compute the loss and its gradients first, then call step(), or keep "
                "optimizer.step(closure)"
            )
        if torch.compiler.is_compiling():
            with torch.no_grad():
                self._update(None)
        else:
            self._step(None, None)

    def step(self) -> None:
        """As a call; for GradScaler, which leaves `found_inf` and `grad_scale` on what it steps. Does not synchronise.

        Raises:
            BindingError: as a call, or the gradients were unscaled already, through the optimizer. Nothing has changed.
        """
        grad_scale = getattr(self, "grad_scale", None)
        if grad_scale is not None and _unscaled_already(self.optimizers):
            raise refusal(
                "scaler.unscale_(optimizer) was called, which the scaler does not know of this step: the gradients "
                "would be divided twice; call scaler.unscale_(step) instead"
            )
        self._step(getattr(self, "found_inf", None), grad_scale)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all optimizers, for GradScaler. Does not synchronise."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def release(self) -> None:
        """Drop the compiled function, its CUDA graphs and their memory; later calls step eagerly.

        Call it before `destroy_process_group`, or before a new `compile_step`. Slots that were floats are floats again,
        which may synchronise, as `Attachment.step_count`.
        """
        self._released = True
        self._compiled = self._update = _refuse_released
        for sched in self._scheds:
            graph = sched._graph
            if isinstance(graph, GraphMode):
                graph.users.discard(self)
                if not graph.users:
                    sched._use_eager(for_good=True)
        gc.collect()  # graphs and their pools hang in cycles

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.sched, self._torch_compile, self._released)

    def _make_stale(self) -> None:
        """The groups are others, or somebody else drives them too: build a new function before the next step."""
        self._stale = True

    def _remake(self) -> None:
        """What is read is in other tensors from now on: build a new function at once, for those who traced this one."""
        if not self._released:
            self._build()

    def _build(self) -> None:
        """A new function to compile, for the groups that there are now; nothing is traced yet."""
        graphs = [enter(sched) for sched in self._scheds]
        for engine in (engine for graph in graphs for engine in graph.engines):
            for tensor in engine.tensors:
                torch._dynamo.mark_static_address(tensor)  # the documented name; there is no public one
        self._update = update_function(self._scheds, graphs)
        # Compiled code hangs on the code object: with one of its own, a step shares no recompile limit with others.
        code = self._update.__code__.replace()
        own = types.FunctionType(code, self._update.__globals__, None, None, self._update.__closure__)
        of_each = zip(self._scheds, graphs, strict=True)
        views = {id(graph.expected(slot)) for sched, graph in of_each for slot in sched.slots}
        self._compiled = torch.compile(own, fullgraph=True, **_options(self._torch_compile, views))
        self._stale = False
        self._stateless = [
            (optimizer, p)
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
            if p not in optimizer.state
        ]

    def _step(self, found_inf: torch.Tensor | None, grad_scale: torch.Tensor | None) -> None:
        if self._released or not self._ready():
            self._step_eagerly(found_inf, grad_scale)
            return
        graphs = [enter(sched) for sched in self._scheds]
        with _stepping(self._scheds, graphs):
            # As torch's wrapper around step() does; the schedules' own hooks are among them.
            for optimizer in self.optimizers:
                _call(optimizer, _global_optimizer_pre_hooks, optimizer._optimizer_step_pre_hooks)
            # Hooks of somebody else ran after ours; the graph takes what live holds, and then writes over it.
            for sched, graph, optimizer in zip(self._scheds, graphs, self.optimizers, strict=True):
                if sched._mode is graph.stepping and not graph.check(optimizer.param_groups):
                    sched._settle()
            _unscale(self.param_groups, grad_scale)
            compiled = self._run(found_inf)
            if compiled:
                for optimizer in self.optimizers:
                    _call(optimizer, optimizer._optimizer_step_post_hooks, _global_optimizer_post_hooks)
        if not compiled:
            self._step_eagerly(found_inf, None)

    def _run(self, found_inf: torch.Tensor | None) -> bool:
        """The compiled function; False if torch did not compile it, because somebody has switched that off."""
        try:
            with torch.no_grad():
                return bool(self._compiled(found_inf))
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:  # what torch.compile raises
            raise refusal(
                f"torch gave up after {torch._dynamo.config.recompile_limit} graphs of this step. "
                "Something else changes from step to step: which parameters have a gradient, or a hyperparameter "
                "that somebody sets as a float. Let it follow a schedule, raise torch._dynamo.config.recompile_limit, "
                "or keep optimizer.step()"
            ) from error

    def _ready(self) -> bool:
        """Whether this step can run in the graph, which is rebuilt where the old one is stale; False: eagerly."""
        for sched in self._scheds:
            sched._take_in_new_groups()
        if self._stale:
            check_supported(self._scheds)
            self._build()
        if self._stateless:
            # Making state is left to torch's own step. A graph that makes some cannot be trusted with the next step:
            # the compiler looks at the state of each group's first parameter only, and would start the others' momentum
            # anew at every step.
            self._stateless = [(optimizer, p) for optimizer, p in self._stateless if p not in optimizer.state]
            if any(p.grad is not None for _, p in self._stateless):
                return False
        return True

    def _step_eagerly(self, found_inf: torch.Tensor | None, grad_scale: torch.Tensor | None) -> None:
        if len(self._scheds) > 1:  # of several, all step or none
            for sched in self._scheds:
                if sched.attached:
                    sched._mode.require_counted()
                    if not sched._mode.check(sched.optimizer.param_groups):
                        sched._settle()
        _unscale(self.param_groups, grad_scale)
        if found_inf is None or found_inf.item() == 0:
            for optimizer in self.optimizers:
                optimizer.step()
            # What has no state now needs none: SGD without momentum.
            self._stateless = [(optimizer, p) for optimizer, p in self._stateless if p.grad is None]


@contextlib.contextmanager
def _stepping(scheds: Sequence[Attachment], graphs: Sequence[GraphMode]) -> Iterator[None]:
    """The attachments know that a graph is about to move their values."""
    for sched, graph in zip(scheds, graphs, strict=True):
        sched._mode = graph.stepping
    try:
        yield
    finally:
        for sched, graph in zip(scheds, graphs, strict=True):
            if sched._mode is graph.stepping:
                sched._mode = graph


def _call(optimizer: Any, *kinds: Mapping[int, Callable[..., object]]) -> None:
    """Run the optimizer's step hooks."""
    for hooks in kinds:
        for hook in hooks.values():
            hook(optimizer, (), {})


def _attachments(sched: Attachment | Several) -> tuple[Attachment, ...]:
    """The one, or those of a plan.

    Raises:
        BindingError: neither.
    """
    if isinstance(sched, Attachment):
        return (sched,)
    several = getattr(sched, "attachments", None)
    if isinstance(several, Mapping) and several:
        return tuple(several.values())
    raise refusal(
        f"it takes what attach() returned, or a ts.Plan of several, got {type(sched).__name__}: write "
        "sched = ts.attach(optimizer, lr=schedule) and step = ts.compile_step(sched)"
    )


def _unscale(groups: Sequence[Mapping[str, Any]], grad_scale: torch.Tensor | None) -> None:
    """Divide all gradients by GradScaler's scale, in place, as fused kernels do. One kernel, and no synchronisation."""
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    if grad_scale is not None and gradients:
        torch._foreach_mul_(gradients, grad_scale.reshape(()).double().reciprocal().float())


def _unscaled_already(optimizers: Iterable[object]) -> bool:
    """Whether the GradScaler whose step() is calling has unscaled one of these optimizers' gradients."""
    frame: FrameType | None = sys._getframe(2)  # the documented way to one's callers
    scaler = frame.f_locals.get("self") if frame is not None else None
    states = getattr(scaler, "_per_optimizer_states", {})  # keyed by the id of what is stepped
    found = [states[id(optimizer)] for optimizer in optimizers if id(optimizer) in states]
    return any(getattr(state.get("stage"), "name", "") != "READY" for state in found)


def _again(sched: Attachment | Several, options: Mapping[str, Any], released: bool) -> CompiledStep:  # noqa: FBT001  pickle's
    """A copied or unpickled step: of the copied schedule and optimizer, to be compiled anew."""
    step = CompiledStep(sched, options)
    if released:
        step.release()
    return step


def _refuse_released(*_: object) -> NoReturn:
    raise refusal("this step was released; make a new one with ts.compile_step(sched)")


def _options(given: Mapping[str, Any], views: set[int]) -> dict[str, Any]:
    """The user's options for torch.compile, and what a graph of many small updates wants.

    Every update reads live. So inductor would weigh fusing each with the next 64 others, for a third of the compile
    time at 32 groups, and would fuse the updates of all groups into one kernel of hundreds of tensors, apart from
    their moments, which are then read twice. What else it fuses passes its results on, and is not meant.
    """
    options = {"dynamic": False} | dict(given)
    if not options.pop("fullgraph", True):
        raise refusal(
            "fullgraph is always True: a step that breaks into several graphs would read values on the host; leave it "
            "out"
        )
    inner = dict(options.pop("options", None) or {})
    if options.get("backend", "inductor") == "inductor":
        if mode := options.pop("mode", None):
            inner = dict(torch._inductor.list_mode_options(mode)) | inner  # its documented name
        inner.setdefault("max_fusion_buffer_group_pairwise_attempts", _FUSION_ATTEMPTS)
        inner.setdefault("score_fusion_memory_threshold", _NEVER)  # bytes that it must save
    if "mode" not in options:
        chosen = inner.get("guard_filter_fn")

        def keep(entries: Sequence[Any]) -> list[bool]:
            wanted = chosen(entries) if chosen else [True] * len(entries)
            ours = [bool(_OWN.match(e.name)) or (e.has_value and id(e.value) in views) for e in entries]
            return [a and not b for a, b in zip(wanted, ours, strict=True)]

        # Not looked at before each step: what only this package can change, and the views in the groups, which the
        # step's own hook looks at and which are no input of the graph.
        inner["guard_filter_fn"] = keep
        options["options"] = inner
    return options
