"""Text becomes the schedule that Python would make of it, and nothing else of Python gets through."""

from __future__ import annotations

import argparse
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tensorsched.schedules import parse as expression
from tensorsched.schedules.parse import MAX_TEXT, parse
from tensorsched.schedules.template import Template
from tests import strategies

NAMES = {"__builtins__": {}, **{name: getattr(ts, name) for name in ts.__all__}, "ts": ts, "tensorsched": ts}


@given(strategies.schedules())
@settings(max_examples=300)
def test_what_a_schedule_prints_reads_back(schedule):
    assert parse(repr(schedule)) == schedule


@given(strategies.schedules())
@settings(max_examples=50)
def test_another_schedule_does_not_read_back(schedule):
    """Control: the comparison tells schedules apart."""
    assert parse(repr(schedule + 1.0)) != schedule


@pytest.mark.parametrize(
    "text",
    [
        "linear(0, 3e-4, steps=500) >> cosine(3e-4, 3e-5, steps=19_500)",
        "ts.warmup_cosine(3e-4, total=20_000, warmup=500)",
        "tensorsched.wsd(1, total=100, warmup=0.1, decay=0.2, shape='1-sqrt')",
        "0.5 * (linear(0, 1, steps=4) + 1) / 2 - 0.25",
        "-cosine(1, 0, steps=4)",
        "2 * 3 + 1 - 4 / 8 * cosine(1, 0, steps=4)",
        "cosine(2**-1, 10**-3, steps=2**10)",
        "cosine(1, 0, steps=4).clamp(0.1).repeat(3, length_mult=2).skip(2).stretch(1.5).hold_each(3).delay(4).take(9)",
        "cosine(1, 0, steps=4).clamp(low=None, high=0.5)",
        "piecewise_linear([(0, 0.0), (4, 1.0)]) >> piecewise_constant((1, 0.1), [3])",
        "minimum(cosine(1, 0, steps=4), 0.5) >> maximum(0.1, inverse_sqrt(1, timescale=3.5))",
        "exponential_decay(1, 0.5, every=2, staircase=True)",
        "constant(1, steps=None)",
        "initial * warmup_linear(1, total=9, warmup=2, ramp='skip_start')",
        "linear(0, 1,\n  steps=4)\n>> 0.1  # a remark",
        "  cosine(1, 0, steps=4)\n",
        "cosine(1, 0, steps=4) ** 2 + 2 ** linear(0, 1, steps=3)",
        "chain([linear(0, 1, steps=3), 0.1 + cosine(1, 0, steps=4).mirror().warp(2).span(7.5, 0.5)])",
        "cosine(512, 64, steps=4).round(to=64).floor()",
        "adamc(cosine(1, 0, steps=4), 0.1) >> wsd_s([1, 0.5], periods=[9, 9], warmup=1)",
    ],
)  # fmt: skip
def test_it_is_what_python_makes_of_it(text):
    assert parse(text) == eval(f"({text.strip()}\n)", NAMES)  # noqa: S307  the other side of the comparison


def test_a_number_is_a_constant():
    assert parse("3e-4") == ts.constant(3e-4)


def test_every_public_shape_and_recipe_is_known():
    makes = {name for name in ts.schedules.__all__ if name[0].islower() and name != "initial"}
    assert makes == expression.FUNCTIONS.keys() | {"from_function", "from_dict", "from_json", "seesaw"}


def test_every_method_that_makes_a_schedule_is_known():
    public = {name for name in vars(ts.Schedule) if not name.startswith("_")}
    assert public == expression.METHODS.keys() | {"to_dict", "to_json", "fingerprint", "plot"}


# Text, the column (from 1) that the caret is under, and what the message says.
ERRORS = [
    ("cosin(1, 0, steps=4)", 1, "unknown name 'cosin'; did you mean cosine?"),
    ("0.5 * cosin(1, 0, steps=4)", 7, "did you mean cosine?"),
    ("cosine(1, 0)", 1, "missing a required argument: 'steps'; it is cosine(start, end, *, steps)"),
    ("cosine(1, 0, step=4)", 14, "cosine has no argument 'step'; did you mean steps?"),
    ("cosine(1, 0, steps=4, steps=5)", 23, "the argument steps is given twice"),
    ("1 - +cosine(1, 0, steps=4)", 5, "+ in front of a schedule"),
    ("1 + cosine(1, 0, steps=-4)", 5, "cosine: steps must be a whole number of steps of at least 0, got -4"),
    ("cosine(1, 0, steps=4).tak(2)", 23, "no such method: .tak; did you mean take?"),
    ("cosine(1, 0, steps=4).take", 23, "take needs its arguments: .take(n)"),
    ("cosine", 1, "cosine needs its arguments: cosine(start, end, *, steps)"),
    ("cosine(1, 0, steps=4) >> cosine(1 0)", 33, "not an expression"),
    ("cosine(1, 0, steps=4", 7, "never closed"),
    ("cosine(1, 0, steps=4))", 22, "unmatched ')'"),
    ("1) + (2", 2, "unmatched ')'"),
    ("constant(1) >> cosine(1, 0, steps=4)", 16, "nothing can follow an unbounded schedule"),
    ("cosine(1, 0, steps=4) / 0", 25, "division by zero"),
    ("1 / 0", 5, "division by zero"),
    ("2 >> 3", 6, ">> between two numbers"),
    ("cosine(1, 0, steps=4) % 2", 25, "the operator % is not part"),
    ("2 ** 65", 6, "** between numbers goes up to"),
    ("cosine(1e-3, 0, 1000)", 1, "2 arguments go by position (start, end), got 3: write steps=1000"),
    ("cosine(1, 0, T_max=4)", 14, "cosine has no argument 'T_max': write steps=4"),
    ("warmup_cosine(1, total=9, warmup_steps=2)", 27, "warmup_cosine has no argument 'warmup_steps': write warmup=2"),
    ("warmup_cosine(x, total=?, warmup=2)", 15, "unknown name 'x'"),
    ("cosin(1, 0, steps=?)", 1, "did you mean cosine?"),
    ("cosine(?, 0, steps=4)", 8, "not an expression"),
    ("wsd(3e-4, total=9, warmup=?, decay 1)", 30, "not an expression"),
    ("wsd(3e-4, total=9, warmup_steps=?, decay=1)", 20, "wsd has no argument 'warmup_steps': write warmup=..."),
    ("0.5 * wds(3e-4, total=9, warmup=?, decay=1)", 7, "unknown name 'wds'; did you mean wsd?"),
    ("seesaw(cosine(1, 0, steps=4))", 1, "it gives two schedules"),
    ("chain(['a'])", 8, "a list holds numbers, or schedules for chain"),
    ("from_function(f, 4)", 1, "it needs a function"),
    ("cosine('ö', 0, steps=4) + x", 1, "cosine: start must be a finite number, got 'ö'"),
    ("'ö' + 1", 1, "an operator needs a schedule or a number"),
    ("[1, 'ö', x]", 5, "a list holds numbers"),
    ("(1).take(2)", 2, "take() is a method of schedules"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "says"), ERRORS, ids=[row[0] for row in ERRORS])
def test_an_error_points_at_the_column(text, column, says):
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    message, shown, caret = str(caught.value).split("\n")
    assert message.startswith(f"column {column}: ")
    assert says in message
    assert shown == f"  {text}"
    assert caret == f"  {' ' * (column - 1)}^"


@given(st.integers(100, 10**6), st.floats(0.0, 0.4), st.floats(0.01, 0.4))
def test_a_template_is_the_schedule_that_is_bound_later(total, warmup, decay):
    text = f"0.5 * wsd(3e-4, total=?, warmup={warmup!r}, decay={decay!r})"
    plan = ts.parse(text)
    assert (repr(plan), plan.missing, plan) == (text, ("total",), ts.parse(f" {text} "))
    assert plan.bind(total=total) == parse(text.replace("?", str(total))) == ts.parse(text, total=total)


def test_a_template_may_miss_several():
    plan = parse("linear(0, 1, steps=?) >> cosine(1, end=?, steps=9)")
    assert plan.missing == ("steps", "end")
    half = plan.bind(steps=4)
    assert isinstance(half, Template)
    assert half.missing == ("end",)
    assert plan.bind(end=0.5, steps=4) == parse("linear(0, 1, steps=4) >> cosine(1, 0.5, steps=9)")


def test_argparse_shows_the_message(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=ts.argument)
    assert parser.parse_args(["--lr", "cosine(1, 0, steps=4)"]).lr == ts.cosine(1, 0, steps=4)
    assert parser.parse_args(["--lr", "cosine(1, 0, steps=?)"]).lr.bind(steps=4) == ts.cosine(1, 0, steps=4)
    with pytest.raises(SystemExit):
        parser.parse_args(["--lr", "cosin(1, 0, steps=4)"])
    assert "argument --lr: column 1: unknown name 'cosin'; did you mean cosine?" in capsys.readouterr().err


def test_an_error_on_a_later_line_names_the_line():
    with pytest.raises(ScheduleError, match=r"line 2, column 4: unknown name 'cosin'"):
        parse("linear(0, 1, steps=3)\n>> cosin(1, 0, steps=4)")


def test_of_a_long_line_the_part_around_the_column_is_shown():
    with pytest.raises(ScheduleError) as caught:
        parse("1 + " * 200 + "x" + " + 1" * 200)
    _, shown, caret = str(caught.value).split("\n")
    assert len(shown) <= 102
    assert shown[caret.index("^")] == "x"


# -- the hostile corpus -----------------------------------------------------------------------------------------------

C = "cosine(1, 0, steps=4)"
BUILTINS = [
    "__import__('os').system('id')", "eval('1')", "exec('1')", "compile('1', '', 'eval')", "open('/etc/passwd')",
    "print(1)", "input()", "globals()", "locals()", "vars()", "dir()", "getattr(1, 'real')", "setattr(1, 'x', 1)",
    "delattr(1, 'x')", "type(1)", "object()", "super()", "help()", "breakpoint()", "exit()", "quit()", "copyright()",
    "memoryview(b'')", "bytearray(10**9)", "bytes(10**9)", "range(10**9)", "list(range(9))", "sum([1, 2])", "max(1, 2)",
    "min(1, 2)", "pow(2, 10**9)", "abs(-1)", "round(1.5)", "int('1')", "float('nan')", "str(1)", "hash(1)", "id(1)",
    "map(abs, [1])", "filter(None, [1])", "zip([1])", "iter([1])", "next(1)", "isinstance(1, int)", "callable(1)",
    "classmethod(1)", "property(1)", "__builtins__", "__builtins__['eval']", "__name__", "__file__", "__loader__",
    "__spec__", "__doc__", "builtins.eval('1')", "NotImplemented", "Ellipsis", "...", "__debug__", "_", "os", "sys",
]  # fmt: skip
ATTRIBUTES = [
    f"{C}.{name}"
    for name in (
        "__class__", "__class__.__mro__", "__class__.__base__.__subclasses__()", "__dict__", "__init__",
        "__init__.__globals__", "__reduce__()", "__reduce_ex__(2)", "__setattr__('steps', 9)", "__delattr__('steps')",
        "__getattribute__('steps')", "__doc__", "__module__", "__hash__()", "__eq__(1)", "__repr__()", "__format__('')",
        "__sizeof__()", "__call__(1)", "__rshift__(1)", "__array_ufunc__", "__dataclass_fields__", "__post_init__()",
        "__subclasshook__(1)", "__init_subclass__()", "__new__(1)", "__dir__()", "__slots__", "__weakref__",
        "_at(1)", "_source()", "_prepare()", "_depth", "_size", "_repr_html_()", "_repr_svg_()", "steps", "settled", "constant_from",
        "kind", "start", "end", "children()", "values(10**9)", "to_dict()", "to_json()", "fingerprint", "plot()",
        "take.__func__", "take.__self__", "take.__globals__", "clamp.__code__", "repeat.__defaults__",
    )
] + [
    "ts.__builtins__", "ts.__dict__", "ts.attach(1)", "ts.errors", "ts.table", "ts.tabulate({})", "ts.from_json('{}')",
    "ts.torch.load('x')", "tensorsched.demo.main()", "ts.schedules.linear(0, 1, steps=2)", "ts.ts.linear(0, 1, steps=2)",
    "ts.record(1, 2)", "ts.compare({})", "ts.ScheduleError('x')", "ts.Schedule()", "ts", "tensorsched", "ts.cosine",
    "ts.__import__('os')", "(1).__class__", "(1).real", "1 .bit_length()", "'a'.join(['b'])", "'{0.__class__}'.format(1)",
    "().__class__.__bases__[0].__subclasses__()", "[].append(1)", "[].__class__", "''.__class__", "(1.0).hex()",
    "cosine.__init__", "cosine.__globals__['os']", "cosine.__class__(1)", "initial.__class__", "initial.value", "os.system('id')",
    "linear.take(linear, 3)", "cosine.kind", "np.load('x')", "torch.load('x')", "sys.exit(1)", "subprocess.run('id')",
]  # fmt: skip
SYNTAX = [
    "lambda: 1", "(lambda: 1)()", "lambda x: x", "(lambda f: f(f))(lambda f: f(f))", "[x for x in [1]]", "{x for x in [1]}",
    "{x: x for x in [1]}", "(x for x in [1])", "sum(x for x in [1])", "[i for i in range(10**9)]", "(x := 5)", "x := 5",
    "f'{1}'", "f'{__import__(\"os\")}'", "f''", "'%s' % 1", "'a' 'b' * 9", "b'x'", "b'x'[0]", "'x' * 10**9", "[0] * 10**9",
    "(0,) * 10**9", "from_values([0] * 10**9)", "from_values('12')", "from_values([None])", "from_values([[1], [2]])",
    "from_values([])", "{}", "{'a': 1}", "{1, 2}", "{**{}}", "[*[1]]", "*[1]", "linear(*[0, 1], steps=3)",
    "linear(**{'start': 0})", "[1][0]", "x[0]", "cosine[0]", f"{C}[0]", f"{C}[0:9]", "1 if 1 else 2", "1 < 2", "1 == 1",
    "1 in [1]", "1 is 1", "not 1", "1 and 2", "1 or 2", "~1", "1 | 2", "1 & 2", "1 ^ 2", "1 << 9", "1 << 10**9", "1 // 2",
    "1 % 2", "1 @ 2", f"{C} @ {C}", f"{C} // 2", f"{C} << 1", "yield", "yield 1", "yield from [1]", "await x",
    "x = 1", "x += 1", "import os", "from os import *", "del x", "pass", "return 1", "raise x", "assert 1", "global x",
    "def f(): pass", "class A: pass", "while 1: pass", "for x in y: z", "with x: y", "try: x", "1; 2", "1\n2", "1,", "1, 2",
    "async def f(): pass", "print 1", "`1`", "$1", "?", "!", "\\", "\x00", "1\x00", "\ufeff", "\u202e1", "#", "'", '"',
    "'''", "1 +", "+ ", "* 2", ">> 1", "()", "[]", "''", "'x'", "True", "None", "-True", "-None", "-'x'", "True + 1", "1j", "1j * 1j",
    "linear(True, 1, steps=4)", "linear(0, 1, steps=True)", "linear(0, 1, steps='4')", "linear([0], 1, steps=4)",
    "linear(0, 1, 4)", "linear(0, 1, steps=4, steps=5)", "linear(0, 1, steps=4)(2)", "cosine(1, 0, steps=4)()", "(cosine)(1)",
    "minimum(cosine)", "minimum(cosine, 1)", f"{C}.take({C})", f"{C}.clamp('a')", f"{C}.clamp(cosine)", "'a' >> 'b'",
    "wsd(1, total=9, warmup=1, decay=1, shape='" + "x" * 9999 + "')", f"{C}.take(lambda: 1)", f"{C}.take(x := 1)",
]  # fmt: skip
LARGE = [
    "2 ** 10 ** 9", "10 ** 10 ** 10", "9 ** 9 ** 9 ** 9", "2 ** 65", "2.0 ** 10**9", "1e300 ** 2", "1e6 ** 64", "(-8) ** 0.5",
    "0 ** -1", "10 ** 400", "1e400", "-1e400", "1e308 * 10", "1e308 + 1e308", "1e308 * 10 - 1e308 * 10", "9" * 5000,
    "0x" + "f" * 5000, "0b" + "1" * 9999, "1_" * 5000 + "1", "1e" + "9" * 5000, f"{C} * {'9' * 400}", f"{C} / 1e-309 / 1e-309 * 0x{'f' * 300}",
    "9999999999 * " * 40 + "1", f"{C}.repeat(10**18)", f"{C}.repeat(2**60)", f"{C}.stretch(1e300)", f"{C}.delay(2**53)",
    f"{C}.hold_each(2**53)", f"{C}.repeat(99, length_mult=1e9)", f"{C}.repeat(length_mult=1e-9)", f"{C}.skip(-1)",
    "linear(0, 1, steps=2**53 * 2)", "linear(0, 1, steps=10**30)", "cosine(1e308, -1e308, steps=9).clamp(low=9, high='x')",
    "(" * 151 + "1" + ")" * 151, "(" * 100_000, ")" * 100_000, "[" * 100_000, "[" * 120 + "]" * 120, "((((" * 30_000 + "1",
    "-" * 5000 + "1", "- " * 100_000 + "1", "+" * 900_000 + "1", "~" * 900_000 + "1", "not " * 100_000 + "1", "lambda: " * 50_000 + "1",
    "1" + "+1" * 100_000, "1" + " if 1 else 1" * 50_000, "x" + "[0]" * 100_000, "x" + ".x" * 100_000, "x" + "()" * 100_000,
    C + ".take(3)" * 3_000, C + " + 1" * 2_000, C + " >> 1" * 100_000, f"{C} >> " * 100_000, "minimum(" * 140 + "1" + ", 2)" * 140,
    "1 " * 200_000, "x" * 200_000, "'" + "x" * 200_000 + "'", "1" * (MAX_TEXT + 1), " " * 2_000_000 + "x", "a" + "\n" * 200_000 + "b",
    "from_values([" + "1, " * 100_000 + "x])", "(" + "1, " * 100_000 + ")", "f'" + "{" * 150 + "1" + "}" * 150 + "'", "lambda" + " " * 500_000,
]  # fmt: skip
# The operators, shapes, recipes, live inputs and holes that came later.
NEWER = [
    # ** of schedules, and other clocks
    f"{C} ** {C}.take", f"{C} ** 'x'", f"{C} ** None", f"{C} ** [1]", f"{C} ** 1e309", f"{C} ** True", f"** {C}", f"{C} ** ** 2",
    f"{C} **= 2", f"{C}.__pow__(2)", f"{C}.__pow__(2, 3)", "pow(2, 3)", f"2 ** {C} ** 10 ** 10 ** 10", "-2 ** 0.5 ** -1e309",
    f"{C}.mirror(2)", f"{C}.mirror().mirror", f"{C}.mirror()()", "constant(1).mirror()", f"{C}.repeat().mirror()", "1 .mirror()",
    f"{C}.warp()", f"{C}.warp(0)", f"{C}.warp(-1)", f"{C}.warp(1e309)", f"{C}.warp({C})", f"{C}.warp(k='2')", f"{C}.warp(True)",
    "noam(512, warmup=4).warp(2)", f"{C}.span(0)", f"{C}.span(-1)", f"{C}.span(1e300)", f"{C}.span(5, -1)", f"{C}.span(5, offset='x')",
    f"{C}.span(2**54)", "constant(1).span(5)", f"{C}.repeat(3, round_lengths=2)", f"{C}.repeat(round_lengths=None)",
    f"{C}.repeat(9**9, length_mult=1.0000001, round_lengths=False)", f"{C}.mirror().repeat(2**52)", f"{C}.skip(2**54)",
    # whole numbers, batches
    f"{C}.round(0)", f"{C}.round(-1)", f"{C}.round(to='64')", f"{C}.round(ndigits=2)", f"round({C})", f"{C}.floor(0)", f"{C}.floor(None)",
    f"{C}.floor(to={C})", f"floor({C})", f"math.floor({C})", f"{C}.over()", f"{C}.over('x')", f"{C}.over([1])", f"{C}.over(-1)",
    f"{C}.over(0.5)", f"{C}.over({C})", "cosine(1, 0, steps=2**50).over(cosine(8, 1, steps=2**40).round())",
    "batch_steps('')", "batch_steps('0:')", "batch_steps('0:1e999')", "batch_steps('0:1 -5:2')", "batch_steps(0)", "batch_steps('" + "9:1 " * 9 + "')",
    # sequences
    "chain()", "chain([])", "chain(1)", "chain('ab')", "chain([None])", "chain([[1]])", "chain([*[1]])", "chain([1, 2])", f"chain({C})",
    f"chain([{C}, 'x'])", f"chain({C}, {C})", f"chain([constant(1), {C}])", f"chain(x for x in [{C}])", "chain(" * 120 + "1" + ")" * 120,
    "chain([" * 70 + C + "])" * 70 + "x", f"chain([{C}], parts=1)", f"chain([{C}]).parts",
    # shapes and recipes
    "linear_growth()", "linear_growth(1)", "linear_growth(1, 2, 3)", "linear_growth(1, 2, every=0)", "linear_growth(1, 2, every=2.5)",
    "linear_growth(1, '2')", "linear_growth(1, 2, staircase=1)", "linear_growth(1, 2) >> 1", "linear_growth(1, 2).repeat()",
    "linear_growth(1, 1e309)", "spline([])", "spline([(0, 1)])", "spline([(0, 1), (0, 2)])", "spline([(0, 1), (5, 1e309)])", "spline([(0, 1), (-5, 1)])",
    "spline('ab')", "power_law(1, 0, timescale=1)", "power_law(1, 1, timescale=0)", "power_law(1, 1, 1)", "inverse_time(1, 0, every=1)",
    "logarithmic(0, 1)", "rex(1, 0, d=1, steps=4)", "tanh(1, 0, steps=4, lower=1e309)", "piecewise_constant([1, 2], [2**60])",
    "wsd(1, total=9, warmup=1, decay=1, shape='__import__(1)')", "wsd(1, total=9, warmup=1, decay=1, shape='power(power(2))')",
    "wsd(1, total=9, warmup=1, decay=1, shape='power(1e999)')", "wsd(1, total=9, warmup=1, decay=1, shape=cosine)",
    "wsd(1, total=9, warmup=1, decay=1, shape='constant')", "wsd_s(1, periods='99', warmup=1)", "wsd_s(1, periods=[2**53, 2**53], warmup=1)",
    f"adamc({C}, {C})", "adamc('x', 1)", f"independent({C}, 'x')", f"seesaw({C})[0]", "wave(1, total=9, warmup=1, cycles=1e309)",
    "infinite(1, warmup=1, cooldown=1)", "power(1, warmup=1)", "one_cycle(1, total=9, shape=1)", "cyclic(1, 2, up=1, mode='x')",
    "warm_restarts(1, period=2, mult_of=1)", "decay_to_zero(1, total=?, floor=1)", "warmup_polynomial(1, total=9, warmup=1, power='2')",
    # what the run gives
    "live()", "live('x')", "live(1, 1)", "live('a b', 1)", "live('__import__(1)', 1)", "live('" + "x" * 41 + "', 1)", "live('x', 'y')",
    f"live('x', {C})", "live('x', 1e309)", "live('x', 1).fill_(2)", "live('x', 1).repeat()", "live('x', 1) >> 1", "live('x', 1).take(3)",
    "live('x', 1).name", "plateau(1)", "plateau(mode='best')", "plateau(factor=0)", "plateau(factor=1)", "plateau(patience=-1)",
    "plateau(name='')", "plateau().mirror()", f"{C}.over(plateau())", "plateau().observe(1)", "plateau(threshold_mode=1)",
    "greedy(window=10**9)", "greedy(factor='x')", "greedy(max_scale=0.5)", "greedy().warp(2)", "spike(above=1)", "spike(times=0)",
    "spike(average=1)", "spike(hold=1.5)", "(plateau() + 1).round()", f"{C}.clamp(plateau(), 'x')",
    # numbers that are not known yet
    "cosine(1, 0, steps=??)", "cosine(1, 0, steps=?.real)", "cosine(1, 0, steps=? + 1)", "cosine(1, 0, steps=-?)", "cosine(1, 0, ?)",
    "cosin(1, 0, steps=?)", "wsd(1, total=?, warmup=x, decay=1)", "?", "total=?", "lambda total=?: 1", "?=1", "cosine(1, 0, steps=?, steps=?)",
    f"{C} >> ?", "cosine(1, 0, **?)", "x=?" * 50_000, "cosine(1, 0, step=?, total=?)",
]  # fmt: skip
# Of everything that can be called: what it does not have, what Python would look up on it, and all of it at once.
EVERY = [
    text
    for name in expression.FUNCTIONS
    for text in (f"{name}(bogus=1)", f"{name}.__globals__", f"{name}({', '.join(['1e309'] * 9)})")
] + [f"{C}.{name}(bogus=?)" for name in expression.METHODS]
HOSTILE = [*BUILTINS, *ATTRIBUTES, *SYNTAX, *LARGE, *NEWER, *EVERY]


def test_the_corpus_is_large():
    assert len(set(HOSTILE)) >= 600


@pytest.mark.parametrize("text", HOSTILE, ids=[repr(text[:40]) + f" {len(text)}" for text in HOSTILE])
def test_nothing_else_gets_through(text, monkeypatch):
    for name in ("system", "popen"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("it ran"))
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert len(str(caught.value)) < 1500  # whatever the text, the message stays one that is read


def test_no_word_of_the_text_is_ever_looked_up(monkeypatch):
    """What the tree's names reach is decided by two dicts; emptied, not even a shape is found."""
    monkeypatch.setattr(expression.names, "FUNCTIONS", {})
    monkeypatch.setattr(expression.names, "METHODS", {})
    for text in (C, f"{C}.take(3)", f"ts.{C}", "initial.take(3)"):
        with pytest.raises(ScheduleError):
            parse(text)
    assert parse("1 + 1") == ts.constant(2.0)
