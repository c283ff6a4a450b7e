"""What is fed: texts, documents, configs, states, command lines and calls, made from seeds and from what was new."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import tensorsched as ts
from tensorsched.binding.checkpoint import ON_MISMATCH
from tensorsched.schedules.parse import FUNCTIONS, METHODS
from tests.fuzz import texts, trees
from tests.fuzz.worlds import WORLDS, world

MOST_KEPT = 3_000
LONGEST_KEPT = 1_000  # characters of a text; of a tree, of its repr, some times as many
SEEDS = 400
SLIPS = (0, 0, 0, 1, 1, 1, 1, 2, 3)


class Corpus:
    """Good inputs to begin with, and those that led somewhere new; a full one forgets at random."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.schedules = self._schedules()
        self.kept: dict[str, list[Any]] = {
            "texts": [text for text, _ in self.schedules],
            "documents": [made.to_dict() for _, made in self.schedules],
            "states": [trees.copied(world(name).run.state_dict()) for name in WORLDS],
        }

    def _schedules(self) -> list[tuple[str, ts.Schedule]]:
        made: list[tuple[str, ts.Schedule]] = []
        while len(made) < SEEDS:
            text = texts.expression(self.chance)
            try:
                schedule = ts.parse(text)
                schedule.to_dict()
            except ts.ScheduleError:
                continue
            made.append((text, schedule))
        return made

    def pick(self, shelf: str) -> Any:
        return self.chance.choice(self.kept[shelf])

    def keep(self, shelf: str, given: Any) -> None:
        try:
            given = trees.copied(given)
            if len(repr(given)) > LONGEST_KEPT * {"texts": 1, "documents": 2, "states": 8}[shelf]:
                return
        except (RecursionError, ValueError):  # too deep, or an int of more digits than Python prints
            return
        kept = self.kept[shelf]
        if len(kept) < MOST_KEPT:
            kept.append(given)
        else:
            kept[self.chance.randrange(MOST_KEPT)] = given


def text(corpus: Corpus) -> str:
    chance = corpus.chance
    made: str = texts.expression(chance) if chance.random() < 0.3 else corpus.pick("texts")
    for _ in range(chance.choice(SLIPS)):
        made = texts.slip(chance, made, corpus.pick("texts"))
    return made


def template(corpus: Corpus) -> tuple[str, dict[str, Any]]:
    """Text with a `?`, and what it is bound to."""
    chance, made = corpus.chance, text(corpus)
    tokens = texts.TOKEN.findall(made)
    at = [i + 1 for i, token in enumerate(tokens[:-1]) if token == "="]
    for i in chance.sample(at, min(len(at), chance.choice((1, 1, 2)))):
        tokens[i] = "?"
    names = [tokens[i - 2] for i in at if tokens[i] == "?" and i > 1] + chance.choice(
        ([], [], ["x"], ["total"])
    )
    values = {
        name: chance.randint(1, 500) if chance.random() < 0.7 else trees.junk(chance)
        for name in names
        if name.isidentifier()
    }
    return "".join(tokens), {name: value for name, value in values.items() if name not in {"text", "self"}}


def document(corpus: Corpus) -> Any:
    return _edited(corpus, "documents")


def _edited(corpus: Corpus, shelf: str) -> Any:
    chance, made = corpus.chance, trees.copied(corpus.pick(shelf))
    for _ in range(chance.choice(SLIPS)):
        made = trees.slip(chance, made, corpus.pick(shelf))
    return made


def config(corpus: Corpus, depth: int = 2) -> Any:
    """A call by name, as people write it in YAML: numbers, numbers in strings, calls in calls."""
    chance = corpus.chance
    name = chance.choice(list(FUNCTIONS))
    made: dict[Any, Any] = {"kind": name}
    for parameter in texts.PARAMETERS[name]:
        if parameter.default is not parameter.empty and chance.random() < 0.75:
            continue
        nested = "Schedule" in str(parameter.annotation) or parameter.name.endswith("shape")
        if nested and depth and chance.random() < 0.7:
            inner = config(corpus, depth - 1)
            made[parameter.name] = (
                [inner, config(corpus, depth - 1)] if "Iterable" in str(parameter.annotation) else inner
            )
        else:
            made[parameter.name] = _plain(chance, texts.argument(chance, parameter, 0))
    return trees.slip(chance, made, corpus.pick("documents")) if chance.random() < 0.4 else made


def _plain(chance: Random, written: str) -> Any:
    """The argument as a config has it: JSON where it is any, else its text."""
    if written == "?" or chance.random() < 0.1:
        return written
    try:
        return json.loads(written.replace("'", '"').replace("(", "[").replace(")", "]").lower())
    except (ValueError, RecursionError):
        return written


def json_text(corpus: Corpus) -> str | bytes:
    chance, made = corpus.chance, document(corpus) if corpus.chance.random() < 0.7 else config(corpus)
    try:
        written = json.dumps(made, default=lambda entry: repr(entry)[:200])
    except (TypeError, ValueError, RecursionError):
        written = repr(made)[:5_000] if not isinstance(made, (dict, list)) else "{}"
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        written = texts.slip(chance, written, written)
    if chance.random() < 0.1:
        coded = written.encode(chance.choice(("utf-8", "utf-16", "utf-32", "latin-1")), errors="replace")
        at = chance.randrange(len(coded) + 1)
        return coded[:at] + chance.choice((b"", b"\xff", b"\xef\xbb\xbf", b"\0")) + coded[at:]
    return written


def state(corpus: Corpus) -> tuple[str, Any, Any]:
    """Which run it is loaded into, the state, and on_mismatch."""
    chance = corpus.chance
    name = chance.choice(list(WORLDS))
    made = (
        _edited(corpus, "states")
        if chance.random() < 0.5
        else _edited_state(corpus, world(name).run.state_dict())
    )
    if (
        isinstance(made, dict)
        and isinstance(made.get("documents"), list)
        and made["documents"]
        and chance.random() < 0.3
    ):
        at = chance.randrange(len(made["documents"]))
        made["documents"][at] = chance.choice(
            (chance.choice(corpus.schedules)[1].to_json(), json_text(corpus))
        )
    return name, made, chance.choice((*ON_MISMATCH, None, None, "x", 3))


def _edited_state(corpus: Corpus, made: Any) -> Any:
    made = trees.copied(made)
    for _ in range(corpus.chance.choice(SLIPS)):
        made = trees.slip(corpus.chance, made, corpus.pick("states"))
    return made


def checkpoint(corpus: Corpus) -> tuple[str, list[tuple[int, str, Any]]]:
    """Of a run, entries of our own in its optimizer's checkpoint that are others: group, entry, value."""
    chance = corpus.chance
    name = chance.choice([name for name in WORLDS if name != "plan"])
    groups = world(name).optimizers[0].state_dict()["param_groups"]
    ours = [key for key in groups[0] if key.startswith(("schedule_", "initial_"))]
    return name, [
        (chance.randrange(len(groups)), chance.choice(ours), trees.junk(chance))
        for _ in range(chance.choice((1, 1, 2, 3)))
    ]


OPTIONS = (
    "--width=9", "--height=3", "--steps=50", "--scale=log", "--scale=linear", "--format=json", "--format=table", "--format=csv", "--rtol=0.1",
    "--peak=1", "--allow=jump", "--steps=x", "--steps=0:9:3", "--steps=1,2,9", "--steps=-1", "--steps=9:0:-1", "--steps=", "--rtol=nan",
    "--width=0", "--width=501", "--height=\u0665", "--peak=nan", "--peak=inf", "--allow=x", "--help", "--version", "-o", "-o=x.txt",
    "--output=no/where.png", "--output=\0.png", "-", "--", "-h", "--s", "--\x1bc", "--steps", "--format=\ud800", "--steps=9007199254740992",
)  # fmt: skip
COMMANDS = (
    "show",
    "show",
    "check",
    "check",
    "diff",
    "diff",
    "values",
    "values",
    "plot",
    "shw",
    "",
    "sho",
    "-x",
)
FILES = (
    "good.json",
    "bad.json",
    "latin.json",
    "folder.json",
    "none.json",
    "\0.json",
    f"{'x' * 300}.json",
    "-",
)


def command_line(corpus: Corpus) -> tuple[list[str], str]:
    """The arguments, and what is on standard input."""
    chance = corpus.chance
    command = chance.choice(COMMANDS)
    files = [
        chance.choice(FILES) if chance.random() < 0.12 else text(corpus)
        for _ in range(chance.choice((0, 1, 1, 1, 2, 2)))
    ]
    if command == "diff" and len(files) == 1:
        files.append(text(corpus))
    options = [chance.choice(OPTIONS) for _ in range(chance.choice((0, 0, 1, 1, 2)))]
    if command == "plot":
        options.append(chance.choice(("--output=no/where.png", "--output=x.txt", "--output=")))
    made = [command, *options, *(["--"] if chance.random() < 0.9 else []), *files]
    if chance.random() < 0.1:
        made[chance.randrange(len(made))] = chance.choice((*OPTIONS, *texts.WORDS))
    typed = text(corpus) if chance.random() < 0.7 else str(json_text(corpus))
    return [argument for argument in made if argument not in {"demo", "bench"}], typed


Call = tuple[str, list[Any], dict[str, Any]]
READS: dict[str, tuple[str, ...]] = {
    "__call__": ("step",), "values": ("n",), "check": ("steps", "peak"), "reference": ("step",),
    "__add__": ("x",), "__rshift__": ("x",), "__pow__": ("x",), "__rtruediv__": ("x",), "__rmul__": ("x",),
    **{name: tuple(p.name for p in texts.PARAMETERS[name]) for name in METHODS},
}  # fmt: skip
"""What is asked of a schedule, and the names of the arguments."""

CHANGES: dict[str, tuple[str, ...]] = {
    "value": ("name", "group", "element"), "schedule": ("name", "group", "element"), "used": ("name", "group", "element"),
    "seek": ("step",), "count": ("n",), "progress": ("part",), "rewrite": ("lr", "free", "weight_decay", "betas"),
    "cool_down": ("steps", "to", "shape"), "extend": ("steps", "how", "keys"), "adopt": ("lr",), "observe": ("*metric",),
    "hand_over": ("*keys", "group"), "check": ("*model",), "step": (), "log": (), "plot": ("steps", "log"),
}  # fmt: skip
"""What is asked of an attachment, and the names of the arguments; those with a star go by position."""

GOOD = {
    "name": ("lr", "kl", "betas", "weight_decay", "a"),
    "group": (0, 1, -1),
    "element": (None, 0, 1),
    "how": ("hold", "stretch"),
    "shape": ("cosine", "1-sqrt"),
}


def read(corpus: Corpus) -> tuple[str, Call]:
    chance = corpus.chance
    return chance.choice(corpus.schedules)[0], _asked(corpus, READS)


def change(corpus: Corpus) -> tuple[str, Call]:
    return corpus.chance.choice(list(WORLDS)), _asked(corpus, CHANGES)


def construct(corpus: Corpus) -> Call:
    """A shape or a recipe from Python, with arguments that no text holds."""
    chance = corpus.chance
    name = chance.choice(list(FUNCTIONS))
    given = {p.name: p for p in texts.PARAMETERS[name] if p.default is p.empty or chance.random() < 0.3}
    odd = chance.choice([*given, ""]) if given else ""
    return (
        name,
        [],
        {
            key: trees.junk(chance) if key == odd else _plain(chance, texts.argument(chance, p, 0))
            for key, p in given.items()
        },
    )


def _asked(corpus: Corpus, calls: dict[str, tuple[str, ...]]) -> Call:
    chance = corpus.chance
    name = chance.choice(list(calls))
    if name == "plot":  # a picture takes long: only what is refused before it
        return name, [], {"steps": chance.choice((-1, 0.5, "x", None.__class__, 10**400, True))}
    kept = [key for key in calls[name] if chance.random() < 0.8]
    values = {key: _value(corpus, key) for key in kept}
    return name, [values.pop(key) for key in kept if key.startswith("*")], values


def _value(corpus: Corpus, key: str) -> Any:
    chance = corpus.chance
    if key in GOOD and chance.random() < 0.6:
        return chance.choice(GOOD[key])
    kind = chance.random()
    if kind < 0.4:
        return (
            chance.choice(corpus.schedules)[1]
            if key not in {"step", "steps", "n", "start"}
            else chance.randint(0, 60)
        )
    return chance.randint(0, 60) if kind < 0.5 else trees.junk(chance)


MAKERS: dict[str, Callable[[Corpus], Any]] = {
    "expressions": text, "arguments": text, "templates": template, "documents": document, "configs": config, "json": json_text,
    "states": state, "checkpoints": checkpoint, "command lines": command_line, "reads": read, "changes": change, "constructors": construct,
}  # fmt: skip
