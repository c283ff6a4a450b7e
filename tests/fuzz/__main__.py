"""Fuzz what comes from outside: texts, configs and documents, states, checkpoints, command lines, arguments.

    python -m tests.fuzz [--minutes 10 | --inputs 1000000] [--only KIND] [--seed N]

Whatever comes in, only the documented errors come out, with a message that is short and harmless to a terminal; nothing
has changed after one; and the work and the memory of each input are bounded. A short round is in `make test`
(tests/test_fuzz.py).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import traceback

from tests.fuzz.fuzzer import Fuzzer, a_limit, reduced
from tests.fuzz.targets import SHARES, TARGETS, shown

_SHOWN = 3_000  # characters of an input


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--inputs", type=int, help="so many instead, however long that takes")
    parser.add_argument("--only", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    chosen = parser.parse_args()
    shares = {chosen.only: 100} if chosen.only else SHARES
    print(f"seed {chosen.seed}", flush=True)
    begun, known = time.monotonic(), 0
    fuzzer = Fuzzer(chosen.seed)
    with a_limit():
        for n in itertools.count(1):
            for kind, share in shares.items():
                fuzzer.feed(kind, share)
            for finding in list(fuzzer.findings.values())[known:]:
                print(f"\n{finding.kind}: {shown(reduced(finding))[:_SHOWN]}", flush=True)
                finding.error.__context__ = None
                traceback.print_exception(finding.error, limit=-6, file=sys.stdout)
            known = len(fuzzer.findings)
            tried = sum(fuzzer.tried.values())
            if tried >= chosen.inputs if chosen.inputs else time.monotonic() > begun + 60 * chosen.minutes:
                break
            if n % 500 == 0:
                print(f"{tried} inputs, {time.monotonic() - begun:.0f} s", flush=True)
    report(fuzzer, time.monotonic() - begun)
    return 1 if fuzzer.findings else 0


def report(fuzzer: Fuzzer, seconds: float) -> None:
    """A line for each kind."""
    for kind in filter(fuzzer.tried.get, TARGETS):
        took, calls, given = fuzzer.slowest[kind]
        counted = f", {calls} calls" if calls else ""
        print(
            f"{kind}: {fuzzer.tried[kind]} inputs, {fuzzer.refused[kind]} of them refused, {len(fuzzer.places[kind])} places, "
            f"{1e3 * fuzzer.spent[kind] / fuzzer.tried[kind]:.2f} ms each, at most {took:.2f} s{counted}: {shown(given)[:100]}"
        )
    print(
        f"longest message {fuzzer.longest} characters, most memory of one input {fuzzer.memory / 1024:.0f} MiB"
    )
    print(f"{sum(fuzzer.tried.values())} inputs in {seconds:.0f} s, {len(fuzzer.findings)} findings")


if __name__ == "__main__":
    sys.exit(main())
