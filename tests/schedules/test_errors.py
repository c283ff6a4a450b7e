"""Bad input is refused where the schedule is written down, in a sentence that says what, why, and the way out."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

import tensorsched as ts
from tensorsched import BindingError, ScheduleError
from tensorsched.schedules.parse import FUNCTIONS

NAMES = {**vars(ts), "np": np, "math": math, "Decimal": Decimal, "up": ts.linear(0.0, 1.0, steps=4)}

# Each row: what is written, and the parts of the message in their order. A rule ("must be ...") is the why and, where the
# rule leaves no question, the way out as well.
STEPS = "must be a whole number of steps"
ROWS = [
    # negative or fractional steps
    ("linear(0, 1, steps=-1)", "linear: steps", f"{STEPS} of at least 0", "got -1"),
    ("linear(0, 1, steps=2.0)", "linear: steps", f"{STEPS} (an int of at least 0)", "got 2.0"),
    ("cosine(0, 1, steps=2.5)", "cosine: steps", STEPS, "got 2.5"),
    ("cosine(0, 1, steps=np.float32(2))", "cosine: steps", STEPS, "got np.float32(2.0)"),
    ("polynomial(0, 1, steps='4')", "polynomial: steps", STEPS, "got '4'"),
    ("exponential(1, 2, steps=True)", "exponential: steps", STEPS, "got True"),
    ("constant(1, steps=-3)", "constant: steps", STEPS, "got -3"),
    ("linear(0, 1, steps=2**53 + 1)", "linear: steps", "must be at most 2**53", "got 9007199254740993"),
    ("linear(0, 1, steps=10**5000)", "linear: steps", "must be at most 2**53", "too large to show"),
    ("exponential_decay(1, 0.5, every=0)", "exponential_decay: every", f"{STEPS} of at least 1", "got 0"),
    ("from_function(math.sqrt, 0)", "from_function: steps", f"{STEPS} of at least 1", "got 0"),
    ("up(-1)", "step", f"{STEPS} of at least 0", "got -1"),
    ("up(1.0)", "step", STEPS, "got 1.0"),
    ("up(2**53 + 1)", "step", "must be at most 2**53", "got 9007199254740993"),
    ("up.values(-1)", "n", STEPS, "got -1"),
    ("up.values(2.0)", "n", STEPS, "got 2.0"),
    *((f"up.{method}(-1)", f"{method}: n", STEPS, "got -1") for method in ("delay", "take", "skip", "hold_each")),
    *((f"up.{method}(0.5)", f"{method}: n", STEPS, "got 0.5") for method in ("delay", "take", "skip", "hold_each")),
    ("up.hold_each(0)", "hold_each: n", f"{STEPS} of at least 1", "got 0"),
    ("up.repeat(0)", "repeat: times", f"{STEPS} of at least 1", "got 0"),
    ("up.repeat(1.5)", "repeat: times", STEPS, "got 1.5"),
    # NaN, inf, and what is no number
    ("constant(math.nan)", "constant: value", "must be a finite number", "got nan"),
    ("linear(math.inf, 1, steps=4)", "linear: start", "must be a finite number", "got inf"),
    ("linear(0, -math.inf, steps=4)", "linear: end", "must be a finite number", "got -inf"),
    ("linear(0, None, steps=4)", "linear: end", "must be a finite number", "got None"),
    ("linear(0, '1', steps=4)", "linear: end", "must be a finite number", "got '1'"),
    ("linear(0, True, steps=4)", "linear: end", "must be a finite number", "got True"),
    ("linear(0, 1j, steps=4)", "linear: end", "must be a finite number", "got 1j"),
    ("linear(0, Decimal(1), steps=4)", "linear: end", "must be a finite number", "got Decimal"),
    ("linear(0, 10**400, steps=4)", "linear: end", "must be a finite number that fits a float64", "got 1000"),
    ("constant(up)", "constant: value", "must be a finite number", "got linear(0.0"),
    ("polynomial(0, 1, 0, steps=4)", "polynomial: power", "must be a number above 0", "got 0"),
    ("polynomial(0, 1, math.nan, steps=4)", "polynomial: power", "must be a finite number", "got nan"),
    ("polynomial(0, 1, steps=4, of='rest')", "polynomial: of", "must be one of 'remaining', 'elapsed'", "got 'rest'"),
    ("exponential_decay(1, 0, every=1)", "exponential_decay: rate", "must be a number above 0", "got 0"),
    ("exponential_decay(1, 1, every=1, staircase=1)", "exponential_decay: staircase", "must be True or False", "got 1"),
    ("inverse_sqrt(1, timescale=-4)", "inverse_sqrt: timescale", "must be a number above 0", "got -4"),
    ("up * math.nan", "constant: value", "must be a finite number", "got nan"),
    ("up >> math.inf", "constant: value", "must be a finite number", "got inf"),
    ("minimum(up, math.nan)", "constant: value", "must be a finite number", "got nan"),
    ("up.stretch(0)", "stretch: factor", "must be a number above 0", "got 0"),
    ("up.stretch(math.inf)", "stretch: factor", "must be a finite number", "got inf"),
    ("up.repeat(length_mult=0)", "repeat: length_mult", "must be a number above 0", "got 0"),
    ("up.repeat(value_mult=math.nan)", "repeat: value_mult", "must be a finite number", "got nan"),
    ("from_values([1, math.nan])", "from_values: entries[1]", "must be a finite number", "got nan"),
    ("from_values(np.array([1, math.inf]))", "from_values: entries[1]", "must be a finite number", "got inf"),
    ("from_values([1, '2'])", "from_values: entries[1]", "must be a finite number", "got '2'"),
    ("from_function(lambda t: None, 4)", "from_function: fn(0)", "must be a finite number", "got None"),
    ("from_function(lambda t: 1 / (2 - t) if t != 2 else math.inf, 4)", "fn(2)", "must be a finite number", "got inf"),
    # empty and misshapen sequences
    ("from_values([])", "from_values: entries", "at least one number", "got []"),
    ("from_values(np.zeros((2, 2)))", "from_values: entries[0]", "must be a finite number", "got [0.0, 0.0]"),
    ("from_values(np.float64(3))", "from_values: entries", "must be a one-dimensional sequence"),
    ("from_values('12')", "from_values: entries", "must be a one-dimensional sequence", "got '12'"),
    ("from_values({1.0, 2.0})", "from_values: entries", "must be a one-dimensional sequence", "got {"),
    ("piecewise_linear([])", "piecewise_linear: points", "at least one (step, value) pair", "got []"),
    ("piecewise_linear([(0, 1, 2)])", "piecewise_linear: points[0]", "a (step, value) pair", "got (0, 1, 2)"),
    ("piecewise_linear([(0.5, 1)])", "piecewise_linear: points[0] step", STEPS, "got 0.5"),
    ("piecewise_linear([(0, math.nan)])", "piecewise_linear: points[0] value", "must be a finite number", "got nan"),
    ("piecewise_constant([], [])", "piecewise_constant: levels", "at least one number", "got []"),
    ("piecewise_constant([1], [2])", "piecewise_constant", "1 boundaries separate 2 values", "got 1 values"),
    # the order of boundaries
    ("piecewise_constant([1, 2, 3], [4, 2])", "piecewise_constant: boundaries", "steps in increasing order", "got [4, 2]"),
    ("piecewise_constant([1, 2], [-1])", "piecewise_constant: boundaries[0]", f"{STEPS} of at least 0", "got -1"),
    ("piecewise_linear([(3, 0), (1, 1)])", "piecewise_linear: points", "in order of their steps", "got [(3, 0)"),
    ("multistep(1, [5, 3])", "multistep: milestones", "steps in increasing order", "got [5, 3]"),
    # after an unbounded schedule
    ("constant(1) >> up", "nothing can follow an unbounded schedule", "constant(1.0) never ends", ".take(n) or steps=n"),
    ("up >> up.repeat() >> up", "nothing can follow an unbounded", ".repeat() never ends", ".take(n)"),
    ("noam(512, warmup=10) >> up", "nothing can follow", "inverse_sqrt(", "never ends", ".take(n)"),
    ("constant(1).repeat()", "an unbounded schedule cannot be repeated", "constant(1.0)", ".take(n)"),
    ("constant(1).values()", "values() of an unbounded schedule needs n", "constant(1.0)"),
    # exponential through or to 0
    ("exponential(0, 1, steps=4)", "exponential: start must not be 0", "no constant factor", "such as 1e-8"),
    ("exponential(1, 0.0, steps=4)", "exponential: end must not be 0", "no constant factor", "cosine or linear"),
    ("exponential(1, -1, steps=4)", "exponential: start and end must have the same sign", "cross 0", "use linear"),
    ("exponential(1e300, 1e-300, steps=4)", "exponential: end / start must fit a float64", "1e-300 / 1e+300", "in two parts"),
    # lengths
    ("linear(0, 1, steps=0).repeat()", "a schedule of length 0 cannot be repeated", "steps=0", ".take(n)"),
    ("up.repeat(length_mult=0.5)", "repeat for ever with length_mult=0.5", "shrinks the cycle to nothing", "pass times=n"),
    ("up.repeat(9, length_mult=0.5)", "length_mult=0.5 shrinks cycle 3", "to 0 steps", "fewer times or a larger length_mult"),
    ("up.repeat(10**9, length_mult=2)", "repeat: total length", "must be at most 2**53"),
    ("up.repeat(10**16)", "repeat: times", "must be at most 2**53"),
    ("up.repeat(10**15 * 9)", "repeat: total length", "must be at most 2**53"),
    ("up.stretch(1e308)", "stretch: total length", "must be at most 2**53"),
    ("up.delay(2**53)", "delay: total length", "must be at most 2**53"),
    ("up.hold_each(2**52)", "hold_each: total length", "must be at most 2**53"),
    ("constant(1, steps=2**53) >> up", "sequence: total length", "must be at most 2**53"),
    # division by 0: a constant at once, a schedule when its values are asked for
    ("up / 0", "division by zero", "(linear(0.0, 1.0, steps=4)) / 0.0", "divide by another"),
    ("(1 / linear(1, 0, steps=4)).values(9)", "the value at step 4 is inf", "a division by 0", "clamp the schedule"),
    ("(1 / up)(0)", "the value at step 0 is inf", "a division by 0", "clamp the schedule"),
    ("exponential_decay(1, 2, every=1)(2000)", "the value at step 2000 is inf", "an overflow", "clamp the schedule"),
    # recipes
    ("warmup_cosine(1, total=10, warmup=11)", "warmup_cosine: warmup is 11 steps", "longer than the total of 10", "raise total"),
    ("warmup_cosine(1, total=10, warmup=1.5)", "warmup_cosine: warmup", "must be in [0, 1]", "got 1.5", "pass an int"),
    ("warmup_cosine(1, total=10, warmup=-0.1)", "warmup_cosine: warmup", "must be in [0, 1]", "got -0.1"),
    ("warmup_cosine(1, total=10, warmup=math.nan)", "warmup_cosine: warmup", "must be a finite number", "got nan"),
    ("warmup_cosine(1, total=10.0, warmup=1)", "warmup_cosine: total", STEPS, "got 10.0"),
    ("warmup_cosine(1, total=10, warmup=-1)", "warmup_cosine: warmup", STEPS, "got -1"),
    ("warmup_cosine(1, total=10, warmup=1, ramp='late')", "warmup_cosine: ramp", "must be one of 'from_start'", "got 'late'"),
    ("warmup_linear(1, total=10, warmup=1, last_step_ends=1)", "warmup_linear: last_step_ends", "True or False", "got 1"),
    ("warmup_linear(math.inf, total=10, warmup=1)", "warmup_linear: peak", "must be a finite number", "got inf"),
    ("warmup_constant(1, warmup=0.5)", "warmup_constant: warmup", "no total that it could be a fraction of", "pass an int"),
    ("warmup_inverse_sqrt(1, warmup=1, timescale=0)", "warmup_inverse_sqrt: timescale", "must be a number above 0", "got 0"),
    ("noam(0, warmup=1)", "noam: d_model", "of at least 1", "got 0"),
    ("noam(1, warmup=0)", "noam: warmup", f"{STEPS} of at least 1", "got 0"),
    ("noam(1, warmup=1, first_count=2)", "noam: first_count", "must be 0 or 1", "got 2"),
    ("wsd(1, total=10, warmup=6, decay=6)", "wsd: warmup (6) and decay (6) are 12 steps", "longer than the total of 10"),
    ("wsd(1, total=10, warmup=1, decay=1, shape='squarish')", "wsd: shape", "must be one of 'linear'", "'minus_power'", "got 'squarish'"),
    ("wsd(1, total=10, warmup=1, decay=1, shape='power(x)')", "wsd: shape", "power with a number in parentheses", "got 'power(x)'"),
    ("wsd(1, total=10, warmup=1, decay=1, shape='square(2)')", "wsd: shape", "which takes no number", "got 'square(2)'"),
    ("wsd(1, total=10, warmup=1, decay=1, shape='minus_power(0)')", "wsd: shape", "power must be a number above 0"),
    ("wsd(1, total=10, warmup=1, decay=1, shape='minus_power')", "wsd: shape", "shape(start, end, steps=n)", "missing"),
    ("wsd(1, total=10, warmup=2, decay=1, warmup_shape='half_life(3)')", "wsd: warmup_shape", "only falls"),
    ("wsd(1, total=10, warmup=2, decay=1, warmup_shape='lowered_linear')", "wsd: warmup_shape", "no warm-up"),
    ("wsd(1, total=10, warmup=1.0, decay=0)", "wsd: warmup=1.0 is a fraction", "all 10 steps", "write warmup=1 for one step"),
    ("wsd_s(1, periods=[], warmup=0)", "wsd_s: periods", "at least one length"),
    ("wsd_s([1, 2], periods=[5], warmup=0)", "wsd_s: 2 peaks for 1 periods"),
    ("wsd_s(1, periods=[5, 0], warmup=0)", "wsd_s: periods[1]", "of at least 1", "got 0"),
    ("wsd_s(1, periods=[5, 5], warmup=5, decay=3)", "wsd_s: warmup (5) and decay (3)", "periods[0]"),
    ("infinite(1, warmup=1, cooldown=1, level=0.5, total=9)", "infinite: total and decay come together"),
    ("infinite(1, warmup=4, cooldown=4, level=0.5, total=9, decay=4)", "infinite: warmup (4), cooldown (4) and decay (4)"),
    ("power(0, warmup=1, scale=1)", "power: peak", "must be a number above 0"),
    ("power(1, warmup=1, scale=1, total=9)", "power: total and decay come together"),
    ("power(1, warmup=8, scale=1, total=9, decay=4)", "power: warmup (8) and decay (4)"),
    ("wave(1, total=9, warmup=1, cycles=0)", "wave: cycles", "must be a number above 0"),
    ("warmup_polynomial(1, total=9, warmup=1, power=-1)", "warmup_polynomial: power", "must be a number above 0"),
    ("decay_to_zero(math.nan, total=9)", "decay_to_zero: peak", "must be a finite number", "got nan"),
    ("adamc(3, 0.1)", "adamc: lr", "must be a schedule", "got 3"),
    ("adamc(0 * up, 0.1)", "adamc: lr has no value above 0", "pass peak"),
    ("independent(up, math.inf)", "independent: wd", "must be a finite number"),
    ("seesaw(constant(1))", "seesaw: lr must have a length"),
    ("seesaw(linear(1, 0, steps=4), 1)", "seesaw: factor", "a number above 1", "got 1"),
    ("seesaw(linear(1, 0.2, steps=4) >> linear(0.2, 0.5, steps=4))", "seesaw: lr must not rise after its peak at step 0"),
    ("batch_steps('5:1')", "batch_steps: text", "the first at 0", "got '5:1'"),
    ("batch_steps('0:1 x')", "batch_steps: text", "pairs such as"),
    ("batch_steps('0:1 9:2 3:4')", "batch_steps: positions", "steps in increasing order"),
    ("batch_steps(3)", "batch_steps: text", "must be text", "got 3"),
    ("one_cycle(1, total=10, rise=6, three_phase=True)", "two phases of 6 steps", "longer than the total of 10", "shorten rise"),
    ("one_cycle(1, total=10, shape='sine')", "one_cycle: shape", "must be one of 'linear', 'cosine'", "or a shape", "got 'sine'"),
    ("one_cycle(1, total=10, shape=constant)", "one_cycle: shape must go from start to end", "shape(start, end, steps=n)"),
    ("wsd(1, total=10, warmup=1, decay=2, shape=up)", "wsd: shape must go from 1 at step 0 to 0 at its end", "got linear(0.0", "or give a shape"),
    ("wsd(1, total=10, warmup=1, decay=2, shape=None)", "wsd: shape", "must be one of 'linear'", "got None"),
    ("wsd(1, total=10, warmup=1, decay=2, shape=lambda a, b, steps: up)", "makes a schedule of the 2 steps"),
    ("rex(1, 0, steps=4, d=1)", "rex: d", "above 0 and below 1", "got 1.0"),
    ("rex(1, 0, steps=4, d=0)", "rex: d", "must be a number above 0", "got 0"),
    ("tanh(1, 0, steps=4, lower=math.inf)", "tanh: lower", "must be a finite number", "got inf"),
    ("one_cycle(math.nan, total=10)", "one_cycle: peak", "must be a finite number", "got nan"),
    ("warm_restarts(1, period=0)", "warm_restarts: period", "of at least 1", "got 0"),
    ("warm_restarts(1, period=2, mult_of='floor')", "warm_restarts: mult_of", "one of 'height', 'peak'"),
    ("warm_restarts(1, period=10, length_mult=0.5)", "shrinks the cycle to nothing"),
    ("cyclic(0, 1, up=0)", "cyclic: up", f"{STEPS} of at least 1", "got 0"),
    ("cyclic(0, 1, up=1, mode='square')", "cyclic: mode", "must be one of 'triangular'", "got 'square'"),
    ("cyclic(0, 1, up=1, mode='exp_range', gamma=0)", "cyclic: gamma", "must be a number above 0", "got 0"),
    ("step_decay(1, every=0)", "step_decay: every", f"{STEPS} of at least 1", "got 0"),
    ("multistep(1, [1, 2], factor=1e200)", "multistep: factor=1e+200", "to the power of 2", "overflows"),
    # operators and clocks
    ("spline([(0, 1)])", "spline: points", "at least two"),
    ("spline([(0, 1), (0, 2)])", "spline: points", "in increasing order of their steps"),
    ("power_law(1, 0, timescale=1)", "power_law: exponent", "must be a number above 0"),
    ("inverse_time(1, 1, every=0)", "inverse_time: every", "of at least 1"),
    ("constant(1).mirror()", "mirror needs a schedule with a length", "constant(1.0) never ends", ".take(n)"),
    ("constant(1).warp(2)", "warp needs a schedule with a length", ".take(n)"),
    ("up.warp(0)", "warp: k", "must be a number above 0"),
    ("up.span(0)", "span: length", "must be a number above 0"),
    ("up.span(3, -1)", "span: offset", "a number of at least 0", "got -1"),
    ("up.round(to=0)", "round: to", "must be a number above 0"),
    ("up.floor(-1)", "floor: to", "must be a number above 0"),
    ("up.repeat(2, round_lengths=1)", "repeat: round_lengths", "True or False"),
    ("chain([])", "chain: parts", "at least one schedule"),
    ("chain(up)", "chain: parts", "a sequence of schedules"),
    ("chain([constant(1), up])", "nothing can follow an unbounded schedule"),
    ("((up - 1) ** 0.5)(0)", "the value at step 0 is nan"),
    ("(up ** -1)(0)", "the value at step 0 is inf", "a division by 0"),
    # the words people know
    ("cosine(1e-3, 0, 1000)", "cosine: 2 arguments go by position (start, end), got 3: write steps=1000", "cosine(start, end, *, steps)"),
    ("cosine(1e-3, T_max=1000)", "cosine: it has no argument 'T_max': write steps=1000"),
    ("step_decay(1, every=2, gamma=0.5)", "step_decay: it has no argument 'gamma': write factor=0.5"),
    ("exponential_decay(1, every=1, gamma=0.5)", "exponential_decay: it has no argument 'gamma': write rate=0.5"),
    ("warmup_cosine(1, total_steps=9, warmup=1)", "warmup_cosine: it has no argument 'total_steps': write total=9"),
    ("warmup_cosine(1, total=9, warmup_steps=1)", "warmup_cosine: it has no argument 'warmup_steps': write warmup=1"),
    ("warmup_cosine(learning_rate=1, total=9, warmup=1)", "it has no argument 'learning_rate': write peak=1"),
    ("warmup_cosine(1, total=9, warmup=1, eta_min=0.1)", "it has no argument 'eta_min': write floor=0.1"),
    ("adamc(up, weight_decay=0.1)", "adamc: it has no argument 'weight_decay': write wd=0.1"),
    ("cosine(1, 0)", "cosine: missing a required argument: 'steps'", "cosine(start, end, *, steps)"),
    ("power(1, warmup=6, scale=1, total=10, decay=5)", "power: warmup (6) and decay (5) are 11 steps, longer than the total of 10"),
    ("cosine(1, 0, stepz=4)", "cosine: it has no argument 'stepz'; did you mean steps?"),
    ("parse('cosine(1, 0, steps=?)')(0)", "steps of cosine(1, 0, steps=?) is not known yet", ".bind(steps=n)"),
    ("parse('cosine(1, 0, steps=?)').to_json()", "steps of cosine(1, 0, steps=?) is not known yet"),
    ("parse('cosine(1, 0, steps=?)').bind(total=4)", "bind: total is not missing", "missing are steps"),
    ("parse(3)", "parse: text", "must be text"),
    ("check(3)", "check: schedule", "must be a schedule"),
    ("check(up, steps=0)", "check: steps", "of at least 1"),
    ("check(parse('cosine(1, 0, steps=?)'))", "is not known yet"),
    # ts.initial, and depth
    ("initial(0)", "ts.initial has no value of its own", "attach() replaces it", "use a number"),
    ("(initial * up).values()", "ts.initial has no value of its own", "attach() replaces it", "use a number"),
    ("[s := up, [s := s + 1 for _ in range(200)]]", "nested more than 100 levels deep", "from_values(", "chain with >>"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "parts"), [(row[0], row[1:]) for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_the_message_says_what_why_and_the_way_out(source, parts):
    with pytest.raises(ScheduleError) as caught:
        eval(source, dict(NAMES))  # noqa: S307  the table above
    message = str(caught.value)
    at = 0
    for part in parts:
        assert part in message[at:], message
        at = message.index(part, at) + len(part)
    assert len(message) < 400
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_how_it_is_called(name):
    with pytest.raises(
        ScheduleError, match=rf"^{name}: it has no argument 'nothing_like_it'.*; it is {name}\("
    ):
        FUNCTIONS[name](nothing_like_it=1)


@pytest.mark.parametrize("error", [ScheduleError, BindingError])
def test_both_errors_are_value_errors(error):
    assert issubclass(error, ValueError)
    assert not issubclass(ScheduleError, BindingError)


def test_what_is_allowed_at_the_edge():
    """The neighbours of the rows above, which are fine."""
    for source in (
        "linear(0, 1, steps=0)", "linear(0, 1, steps=2**53)", "linear(1, 0, steps=0) >> up", "piecewise_constant([1], [])",
        "from_values([1])", "piecewise_linear([(0, 1)])", "exponential(-1, -2, steps=4)", "up.take(0)", "up.skip(0)",
        "up.values(0)", "exponential(1e150, 1e-150, steps=4)", "up.repeat(3, length_mult=0.5)", "up / 1e-300",
        "warmup_cosine(1, total=0, warmup=0)", "warmup_cosine(1, total=10, warmup=10)", "piecewise_constant([1, 2, 3], [4, 4])", "chain([up])", "warmup_cosine(1, total=0, warmup=1.0)", "one_cycle(1, total=0)",
        "wsd(1, total=10, warmup=5, decay=5)", "multistep(0.1, [])", "cyclic(1, 0, up=1, down=0)",
    ):  # fmt: skip
        made = eval(source, dict(NAMES))  # noqa: S307  the list above
        assert isinstance(made, (ts.Schedule, np.ndarray)), source
