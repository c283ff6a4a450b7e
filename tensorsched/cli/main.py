"""The command line's arguments, errors and exit status."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tensorsched import __version__
from tensorsched.cli import commands, show, values
from tensorsched.errors import ScheduleError
from tensorsched.schedules.check import CODES
from tensorsched.schedules.validators import cut
from tensorsched.schedules.views.terminal import harmless

Run = Callable[[argparse.Namespace], int]
Add = Callable[..., Any]
"""`add_argument` of a parser."""

_MOST_SAID = 1_000  # characters of what argparse has to say: it repeats arguments whole
_ABOUT = """\
Look at schedules: their curves, values, differences and mistakes.

EXPR is a schedule in the library's own syntax, such as
    'linear(0, 3e-4, steps=500) >> cosine(3e-4, 3e-5, steps=19_500)'
    'warmup_cosine(3e-4, total=20_000, warmup=0.025)'
or the path of a .json file that to_json() wrote, or - for either on standard
input. It is parsed, not run: nothing but the library's shapes, recipes,
methods, operators and numbers is understood. Put -- in front of an EXPR that
starts with a minus."""

_FAILED = "a bad command line or expression, a missing file or package."
_FOUND = {"check": ", nothing found; 1 something was found", "diff": ", no difference; 1 there is one"}
_STATUS = f"""\
exit status: 0 done, and nothing to report; 1 check found something, diff found
a difference, or the demo's runs were not the same; 2 it could not be done:
{_FAILED}"""
_EXPR = "a schedule such as 'cosine(3e-4, 0, steps=1000)', the path of a .json file, or - for standard input"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough (`| head`): no failure. What is still in the buffer goes nowhere,
        # or the interpreter would complain while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return commands.OK
    except KeyboardInterrupt:
        return 130  # what shells give for it
    except Exception:  # noqa: BLE001  a defect of ours: Python would exit with 1, which means that something was found
        traceback.print_exc()
        print("tensorsched: this is a bug, please report it with the command line", file=sys.stderr)
        return commands.FAILED
    return status


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["demo"]:  # has a command line of its own
        return _demo(arguments[1:])
    options = _parser().parse_args(arguments)
    run: Run = options.run
    try:
        return run(options)
    except (ScheduleError, OSError, ModuleNotFoundError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        print(harmless(f"tensorsched {options.command}: error: {error}"), file=sys.stderr)
        return commands.FAILED


def _demo(arguments: list[str]) -> int:
    from tensorsched import demo  # noqa: PLC0415  it builds a model

    return demo.main(arguments)


def _run_bench(options: argparse.Namespace) -> int:
    from tensorsched.cli import bench  # noqa: PLC0415  torch's optimizers take a while to import

    return bench.run(options)


class _Parser(argparse.ArgumentParser):
    """One that does not repeat a terminal's control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(cut(harmless(message), _MOST_SAID))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "tensorsched",
        description=_ABOUT,
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tensorsched {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (run, text, add_arguments) in _COMMANDS.items():
        made = subparsers.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"exit status: 0 done{_FOUND.get(name, '')}; 2 it could not be done: {_FAILED}",
        )
        made.set_defaults(run=run)
        add_arguments(made.add_argument)
    return parser


def _show(add: Add) -> None:
    add("expr", metavar="EXPR", nargs="+", help=_EXPR)
    _picture(add)
    _unit(add)
    text = "of the value axis; auto (default): logarithmic where the values span powers of ten evenly"
    add("--scale", choices=("auto", "linear", "log"), default="auto", help=text)


def _plot(add: Add) -> None:
    add("expr", metavar="EXPR", nargs="+", help=_EXPR)
    add("-o", "--output", required=True, metavar="FILE", help="ends in .png, .svg or .pdf")
    add("--steps", type=commands.step_count, metavar="N", help="last step to show")
    add("--scale", choices=("auto", "linear", "log"), default="auto", help="of the value axis")
    _unit(add)


def _values(add: Add) -> None:
    add("expr", metavar="EXPR", nargs="+", help=_EXPR)
    text = "100 (steps 0..99), 0:1000:10 or 0,5,9; default: all of the longest, and its end value"
    add("--steps", type=commands.step_selection, metavar="STEPS", help=text)
    add("--format", choices=("csv", "json", "table"), default="csv", help="default: csv")


def _diff(add: Add) -> None:
    add("expr1", metavar="EXPR1", help=_EXPR)
    add("expr2", metavar="EXPR2", help="another one")
    text = "relative difference that counts as none (default 0)"
    add("--rtol", type=commands.positive, default=0.0, metavar="X", help=text)
    _picture(add)


def _check(add: Add) -> None:
    add("expr", metavar="EXPR", nargs="+", help=_EXPR)
    add("--steps", type=commands.step_count, metavar="N", help="length of the run")
    text = "largest value that is meant; default: what the warm-up leads to"
    add("--peak", type=float, metavar="X", help=text)
    text = "a finding that is meant, and is not reported; may be repeated: " + ", ".join(CODES)
    add("--allow", action="append", choices=tuple(CODES), default=[], metavar="CODE", help=text)


def _bench(add: Add) -> None:
    add(
        "--groups",
        type=commands.step_count,
        nargs="+",
        default=[1, 8, 128],
        metavar="N",
        help="numbers of param groups (default 1 8 128)",
    )
    text = "how often each is timed, in turns (default 30)"
    add("--rounds", type=commands.step_count, default=30, metavar="N", help=text)
    add("--json", metavar="FILE", help="write the figures, too")


def _picture(add: Add) -> None:
    add("--steps", type=commands.step_count, metavar="N", help="last step to look at; default: the end")
    text = "characters; default: the terminal's, at most 100"
    add("--width", type=commands.characters, metavar="N", help=text)
    add("--height", type=commands.characters, default=14, metavar="N", help="lines of the curve (default 14)")


def _unit(add: Add) -> None:
    text = "what a schedule counts, where that is not steps: tokens, epoch"
    add("--unit", type=commands.unit_name, default="step", metavar="WORD", help=text)


_LOOKS_FOR = (
    "look for mistakes: jumps, phases without a step, ends that are not reached or come long before the run's, values "
    "above the peak or below 0, a warm-up longer than the run or of one step, + where >> was meant, a value that never "
    "changes"
)
_COMMANDS: dict[str, tuple[Run, str, Callable[[Add], None]]] = {
    "show": (
        show.show,
        "draw a schedule in the terminal, with its length, peak, area and phases; or several in one picture",
        _show,
    ),
    "plot": (commands.plot, "write a picture (needs matplotlib); several EXPRs are compared", _plot),
    "values": (values.run, "print the values; of several EXPRs beside each other", _values),
    "diff": (commands.diff, "say where two schedules differ, and draw both", _diff),
    "check": (
        commands.check,
        _LOOKS_FOR,
        _check,
    ),
    "bench": (_run_bench, "time a schedule's step beside torch's schedulers, on this machine", _bench),
    "demo": (  # listed here; it is run before the arguments are parsed
        show.show,
        "train a small model under tensorsched and under LambdaLR (demo --help says more)",
        lambda _: None,
    ),
}
