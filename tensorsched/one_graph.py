"""L6: look-up and optimizer step in one graph.

What is in the way, and what is done about it:

1.  `torch.compile(optimizer.step, fullgraph=True)` cannot work: torch's wrapper around `step` breaks the graph on purpose,
    and the hooks are Python. So the undecorated step is traced, under no_grad, and the wrapper goes around the compiled
    function: hooks run as ever, before and after it.
2.  A float in a param_group is a constant of the graph, or recompiles it when it changes. So in graph mode every slot is
    resident: a 0-dim view of the engine's live buffer.
3.  Views of one buffer that a graph both reads and writes send it down a slow path (every parameter is copied, no address
    counts as static, DTensors raise). So the graph never sees those views: it takes live whole, cuts it up inside, puts the
    pieces into the groups, calls the step, and puts the views back:

        live (1, K) --unbind--> pieces -> groups -> step() -> groups <- views
        clock + 1 -> row of the table -> live

    All of it happens while torch traces, in Python; what is left in the graph is one gather of K numbers and one addition.
4.  Some lines of torch.optim look at a hyperparameter on the host (`if weight_decay != 0`), or pass it where only a number
    may be (`alpha=momentum`). While tracing, a TorchFunctionMode answers the first for scheduled hyperparameters and
    rewrites the second as a multiplication. "Not zero" is always the answer: adding 0 * p and multiplying by 1 - lr * 0
    change nothing. Momentum is the exception, since torch leaves the buffer alone at 0: a schedule that touches 0 is
    refused.
5.  The compiled function reads and writes its tensors by address, so that a CUDA graph of it needs no copies.

The optimizer's first step runs eagerly: it makes the optimizer's state (momentum buffers) as torch does.
"""

from __future__ import annotations

import gc
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import optim
from torch.overrides import TorchFunctionMode

from tensorsched.binding.attachment import Attachment, attachments_of
from tensorsched.binding.slots import Slot, put
from tensorsched.binding.support import BUFFERED, NO_GRAPH, ONE_GRAPH
from tensorsched.binding.wiring import Wiring
from tensorsched.errors import BindingError

__all__ = ["CompiledStep", "compile_step"]

_WHY = "ts.compile_step reads every value on the device"
_FUSION_ATTEMPTS = 4


def compile_step(sched: Attachment, **torch_compile_options: Any) -> CompiledStep:
    """Compile table look-up, every scheduled hyperparameter and the optimizer's update into one graph.

    Args:
        sched: from `attach`, with advance="auto".
        **torch_compile_options: for `torch.compile`: backend, mode ("reduce-overhead" for CUDA graphs), options, dynamic.
            fullgraph is always True.

    Returns:
        A CompiledStep: call it in the place of `optimizer.step()`.

    Raises:
        BindingError: this optimizer cannot be one graph (fused, Adafactor, LBFGS, unknown types); the message has the
            reason and the alternative. Nothing has changed.

    Example:
        >>> import torch, tensorsched as ts
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> sched = ts.attach(torch.optim.AdamW([weight]), lr=ts.linear(0.1, 0.0, steps=10))
        >>> step = ts.compile_step(sched, backend="aot_eager")
        >>> weight.grad = torch.ones(3)
        >>> step(), step(), sched.step_count, round(sched.value("lr").item(), 6)
        (None, None, 2, 0.08)
    """
    return CompiledStep(sched, torch_compile_options)


class CompiledStep:
    """The optimizer step as one compiled graph; made by `compile_step`, called in the place of `optimizer.step()`.

    The first call steps eagerly, which makes the optimizer's state; the second compiles. A call does not synchronise.
    Parameters that get their first gradient later, `add_param_group` and `load_state_dict` make the next call compile
    again; `sched.seek` and `sched.rewrite` do not.

    Inside a function that you compile yourself, a call is traced into your graph: see the README. For mixed precision
    pass it to GradScaler in the place of the optimizer, `scaler.step(step)`: a skipped step is decided on the device.
    """

    # GradScaler hands found_inf and the scale to an optimizer that says so, and reads nothing on the host.
    _step_supports_amp_scaling = True

    def __init__(self, sched: Attachment, torch_compile_options: Mapping[str, Any]) -> None:
        check_supported(sched)
        self.sched = sched
        self.optimizer = sched.optimizer
        self._torch_compile = dict(torch_compile_options)
        self._hooked = optim.Optimizer.profile_hook_step(self._run)
        self._arguments: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
        self._stepped: int | None = None  # the generation whose first step was an eager one
        self._released = False
        self._build()

    def __call__(self) -> None:
        """One optimizer step, and the schedule's next values. Does not synchronise.

        Raises:
            BindingError: the schedule is detached, or something else wrote to a slot. Nothing has changed.
        """
        if torch.compiler.is_compiling():
            with torch.no_grad():
                self._update(None, None)
        else:
            self._step(None, None)

    def step(self) -> None:
        """As a call; for GradScaler, which leaves `found_inf` and `grad_scale` on what it steps."""
        self._step(getattr(self, "found_inf", None), getattr(self, "grad_scale", None))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's, for GradScaler."""
        return self.optimizer.param_groups  # type: ignore[no-any-return]

    def release(self) -> None:
        """Drop the compiled function, its CUDA graphs and their memory; later calls step eagerly.

        Call it before `destroy_process_group`, or before a new `compile_step`.
        """
        self._released = True
        self._compiled = self._update = _refuse_released
        self.sched.use_eager()
        gc.collect()  # graphs and their pools hang in cycles

    def _build(self) -> None:
        """A new function to compile, for the groups that there are now; nothing is traced yet."""
        wiring = self.sched.use_graph(_WHY)
        for engine in wiring.engines:
            for tensor in engine.tensors:
                torch._dynamo.mark_static_address(tensor)  # noqa: SLF001  the documented name; no public one
        self._update = _update_function(self.sched, wiring)
        # Compiled code hangs on the code object: with one of its own, a step shares no recompile limit with others.
        code = self._update.__code__.replace()
        own = types.FunctionType(code, self._update.__globals__, None, None, self._update.__closure__)
        views = {id(wiring.expected(slot)) for slot in self.sched.slots}
        self._compiled = torch.compile(own, fullgraph=True, **_options(self._torch_compile, views))
        self._generation, self._revision = self.sched.generation, self.sched.revision

    def _step(self, found_inf: torch.Tensor | None, grad_scale: torch.Tensor | None) -> None:
        if self._released or not self._ready(amp=found_inf is not None):
            self._step_eagerly(found_inf, grad_scale)
            return
        self._arguments = (found_inf, grad_scale)
        self.sched.in_graph_step = True
        try:
            self._hooked(self.optimizer)
        except BaseException:
            self.sched.use_eager()
            raise
        finally:
            self.sched.in_graph_step = False
            self._arguments = (None, None)

    def _run(self, _: optim.Optimizer) -> None:
        with torch.no_grad():
            self._compiled(*self._arguments)

    def _ready(self, *, amp: bool) -> bool:
        """Whether this step can run in the graph, made anew where the old one is stale; False for an eager one."""
        sched = self.sched
        sched.take_in_new_groups()
        stale = sched.generation != self._generation
        # Later, torch makes state while it traces. A step that may be skipped must be able to put all state back.
        if (self._stepped != sched.generation or (amp and self.optimizer.state)) and self._lacks_state():
            return False
        self._stepped = sched.generation
        if stale or sched.revision != self._revision:
            check_supported(sched)
            self._revision = sched.revision
        if stale:
            self._build()
        sched.use_graph(_WHY)
        return True

    def _lacks_state(self) -> bool:
        """Whether a parameter with a gradient has no state yet: making it is left to torch's own eager step."""
        state = self.optimizer.state
        return any(
            parameter.grad is not None and parameter not in state
            for group in self.optimizer.param_groups
            for parameter in group["params"]
        )

    def _step_eagerly(self, found_inf: torch.Tensor | None, grad_scale: torch.Tensor | None) -> None:
        if grad_scale is not None:
            _unscale(self.optimizer.param_groups, grad_scale)
        if found_inf is None or found_inf.item() == 0:
            self.optimizer.step()
            self._stepped = self.sched.generation


def check_supported(sched: Attachment) -> None:
    """Refuse what cannot be one graph.

    Raises:
        BindingError: with the reason, and what to do instead.
    """
    optimizer = sched.optimizer
    kind = type(optimizer)
    instead = "keep optimizer.step(), which follows the schedule too"
    if reason := NO_GRAPH.get(kind):
        raise _refusal(f"{kind.__name__}: {reason}; {instead}")
    if kind not in ONE_GRAPH:
        raise _refusal(
            f"nothing is known of how {kind.__name__} steps, so a graph of it might use a frozen value; {instead}, or "
            f"one of torch's own: {', '.join(sorted(known.__name__ for known in ONE_GRAPH))}"
        )
    if not sched.advances_by_itself:
        raise _refusal("the graph counts the step itself, and advance='manual' would count it twice; attach with 'auto'")
    if len(attachments_of(optimizer)) > 1:
        raise _refusal("another attachment moves values of this optimizer too; attach all of them in one call")
    for index, group in enumerate(optimizer.param_groups):
        if group.get("fused"):
            raise _refusal(
                f"group {index} is fused, and torch's fused kernels cannot be traced; build the optimizer with "
                "fused=False (the compiler fuses the step by itself), or keep optimizer.step()"
            )
        if group.get("differentiable"):
            raise _refusal(f"group {index} is differentiable, and the graph runs under no_grad; {instead}")
    devices = {parameter.device for group in optimizer.param_groups for parameter in group["params"]}
    if len(devices) > 1:
        raise _refusal(f"the parameters are on {', '.join(sorted(map(str, devices)))}; {instead}")
    for slot in sched.slots:
        _refuse_zero_momentum(kind, slot)


def _refuse_zero_momentum(kind: type, slot: Slot) -> None:
    if (kind, slot.request.part) not in BUFFERED:
        return
    zeros = np.flatnonzero(slot.schedule.values((slot.schedule.settled or 0) + 1) == 0)
    if zeros.size:
        raise _refusal(
            f"{slot.name} is 0 at step {int(zeros[0])}, where torch's {kind.__name__} leaves its momentum buffer alone, "
            "which a graph cannot do for some steps only; let the schedule stay above 0 (1e-6, say), or keep "
            "optimizer.step()"
        )


def _refusal(text: str) -> BindingError:
    return BindingError(f"compile_step: {text}")


def _refuse_released(*_: object) -> None:
    raise _refusal("this step was released; make a new one with ts.compile_step(sched)")


def _options(given: Mapping[str, Any], views: set[int]) -> dict[str, Any]:
    """The user's options for torch.compile, and what a graph of many small updates wants."""
    options = {"dynamic": False} | dict(given)
    if not options.pop("fullgraph", True):
        raise _refusal("fullgraph is always True: a step that breaks into several graphs would read values on the host")
    inner = dict(options.pop("options", None) or {})
    if options.get("backend", "inductor") == "inductor":
        if mode := options.pop("mode", None):
            inner = dict(torch._inductor.list_mode_options(mode)) | inner  # noqa: SLF001  its documented name
        # Every update reads live, so inductor would weigh fusing each with the next 64 others: for nothing, since they
        # write different parameters, and for a third of the compile time at 32 groups.
        inner.setdefault("max_fusion_buffer_group_pairwise_attempts", _FUSION_ATTEMPTS)
    if "mode" not in options:
        chosen = inner.get("guard_filter_fn")

        def keep(entries: Sequence[Any]) -> list[bool]:
            wanted = chosen(entries) if chosen else [True] * len(entries)
            return [a and not (e.has_value and id(e.value) in views) for a, e in zip(wanted, entries, strict=True)]

        # The views in the groups are checked by the step's own hook and are no input of the graph.
        inner["guard_filter_fn"] = keep
        options["options"] = inner
    return options


def _update_function(sched: Attachment, wiring: Wiring) -> Callable[..., None]:
    """The function that is traced: the optimizer's own step with the pieces of live in its groups, then the next row."""
    optimizer = sched.optimizer
    step = inspect.unwrap(type(optimizer).step)
    engines = tuple(wiring.engines)
    places = tuple(
        (*slot.place, number, engine.table.live_column[slot.name])
        for slot in sched.slots
        for number, engine in enumerate(engines)
        if slot.name in engine.table.live_column
    )
    answered = any(key != "lr" for _, key, *_ in places)  # the compiler deals with tensors for lr by itself
    count = len(optimizer.param_groups)

    def update(found_inf: torch.Tensor | None, grad_scale: torch.Tensor | None) -> None:
        groups = optimizer.param_groups
        if len(groups) != count or not sched.attached:
            raise _refusal("param_groups were added, or the schedule was detached; make a new step of it")
        pieces = [engine.live.view(-1).unbind(0) for engine in engines]
        values = [pieces[number][column] for *_, number, column in places]
        views = [groups[index][key] for index, key, *_ in places]
        for (index, key, element, *_), value in zip(places, values, strict=True):
            put(groups[index], key, element, value)
        if grad_scale is not None:
            _unscale(groups, grad_scale)
        before = [] if found_inf is None else _copies(optimizer)
        if answered:
            with _Answers(values):
                step(optimizer)
        else:
            step(optimizer)
        for (index, key, *_), view in zip(places, views, strict=True):
            groups[index][key] = view
        for tensor, old in before:
            tensor.copy_(torch.where(found_inf != 0, old, tensor))
        for engine in engines:
            engine.advance_in_graph(found_inf)

    return update


def _unscale(groups: Iterable[Mapping[str, Any]], grad_scale: torch.Tensor) -> None:
    inverse = grad_scale.double().reciprocal().float()
    for group in groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(inverse)


def _copies(optimizer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every tensor that a step changes, and what it holds before (in a graph that is no copy)."""
    tensors: list[torch.Tensor] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                tensors.append(parameter)
                if parameter in optimizer.state:
                    tensors += [v for v in optimizer.state[parameter].values() if isinstance(v, torch.Tensor)]
    return [(tensor, tensor.clone()) for tensor in tensors]


class _Answers(TorchFunctionMode):
    """While tracing: scheduled values are not 0, and a tensor may stand where torch takes a number only."""

    def __init__(self, values: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.values = set(values)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG002, PLW3201
        kwargs = kwargs or {}
        if func in _COMPARISONS and args[0] in self.values:
            return _COMPARISONS[func]
        alpha = kwargs.get("alpha")
        if func in _SUMS and isinstance(alpha, torch.Tensor):
            return _SUMS[func](args[0], args[1], alpha)
        return func(*args, **kwargs)


T = torch.Tensor
# x + alpha * y, where alpha may only be a number. (The compiler deals with the `value=` of addcmul and addcdiv itself.)
_SUMS: Mapping[Any, Callable[..., torch.Tensor]] = {
    T.add: torch.addcmul,
    torch.add: torch.addcmul,
    T.add_: T.addcmul_,
}
_COMPARISONS: Mapping[Any, bool] = {
    T.ne: True,
    T.__ne__: True,
    T.gt: True,
    T.__gt__: True,
    T.ge: True,
    T.__ge__: True,
    T.eq: False,
    T.__eq__: False,
    T.lt: False,
    T.__lt__: False,
    T.le: False,
    T.__le__: False,
}
