"""The gallery as data: an example of every shape and recipe, and which one to use.

`python -m tests.schedules.gallery` writes the page, notebooks/07_gallery.ipynb, without its pictures; then
`make notebooks ARGS='--write notebooks/07_gallery.ipynb'` draws them. What is said of each comes from its docstring.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import nbformat

import tensorsched as ts
from tensorsched.schedules.node import brief
from tensorsched.schedules.views.numerals import tidy

PAGE = Path(__file__).resolve().parents[2] / "notebooks" / "07_gallery.ipynb"

# Recipes first: they are what people ask for. The examples are 1,000 steps long where they have a length.
RECIPES = {
    "warmup_cosine": "ts.warmup_cosine(3e-4, total=1_000, warmup=0.05, floor=3e-5)",
    "warmup_linear": "ts.warmup_linear(3e-4, total=1_000, warmup=0.05)",
    "decay_to_zero": "ts.decay_to_zero(3e-4, total=1_000)",
    "warmup_polynomial": "ts.warmup_polynomial(3e-4, total=1_000, warmup=0.05, power=2.0)",
    "warmup_constant": "ts.warmup_constant(3e-4, warmup=50)",
    "wsd": 'ts.wsd(3e-4, total=1_000, warmup=0.05, decay=0.2, shape="1-sqrt")',
    "wsd_s": "ts.wsd_s([3e-4, 2e-4], periods=[500, 500], warmup=50, decay=0.2)",
    "infinite": "ts.infinite(3e-4, warmup=50, cooldown=400, level=1e-4, total=1_000, decay=0.2)",
    "power": "ts.power(3e-4, warmup=50, scale=3e-3, total=1_000, decay=0.1)",
    "warmup_inverse_sqrt": "ts.warmup_inverse_sqrt(3e-4, warmup=50).take(1_000)",
    "noam": "ts.noam(512, warmup=100).take(1_000)",
    "one_cycle": "ts.one_cycle(0.1, total=1_000)",
    "warm_restarts": "ts.warm_restarts(0.1, period=100, length_mult=2.0, peak_mult=0.7)",
    "wave": "ts.wave(3e-4, total=1_000, warmup=0.05, cycles=2.5)",
    "cyclic": 'ts.cyclic(0.001, 0.01, up=100, mode="triangular2")',
    "step_decay": "ts.step_decay(0.1, every=300).take(1_000)",
    "multistep": "ts.multistep(0.1, [500, 800])",
    "batch_steps": 'ts.batch_steps("0:256 300:512 700:1024")',
    "adamc": "ts.adamc(ts.warmup_cosine(3e-4, total=1_000, warmup=0.05), 0.1)",
    "independent": "ts.independent(ts.wsd(3e-4, total=1_000, warmup=0.05, decay=0.2, floor=3e-5, start=3e-5), 1e-4, follow=False)",
    "seesaw": "ts.seesaw(ts.warmup_cosine(3e-4, total=1_000, warmup=0.05, floor=1e-5))[0]",
}
SHAPES = {
    "constant": "ts.constant(3e-4, steps=1_000)",
    "linear": "ts.linear(3e-4, 0.0, steps=1_000)",
    "cosine": "ts.cosine(3e-4, 0.0, steps=1_000)",
    "polynomial": "ts.polynomial(3e-4, 0.0, 2.0, steps=1_000)",
    "exponential": "ts.exponential(3e-4, 3e-6, steps=1_000)",
    "rex": "ts.rex(3e-4, 0.0, d=0.9, steps=1_000)",
    "tanh": "ts.tanh(3e-4, 0.0, steps=1_000)",
    "logarithmic": "ts.logarithmic(0.0, 3e-4, steps=1_000)",
    "spline": "ts.spline([(0, 0.0), (100, 3e-4), (700, 2e-4), (1_000, 0.0)])",
    "piecewise_linear": "ts.piecewise_linear([(0, 0.0), (100, 3e-4), (700, 2e-4), (1_000, 0.0)])",
    "piecewise_constant": "ts.piecewise_constant([3e-4, 1e-4, 3e-5], [500, 800])",
    "exponential_decay": "ts.exponential_decay(3e-4, 0.5, every=200)",
    "inverse_sqrt": "ts.inverse_sqrt(3e-4, timescale=100)",
    "inverse_time": "ts.inverse_time(3e-4, 1.0, every=200)",
    "linear_growth": "ts.linear_growth(1e-5, 1e-5, every=100)",
    "power_law": "ts.power_law(3e-4, 0.51, timescale=100)",
    "from_values": "ts.from_values([1e-4, 3e-4, 2e-4, 1e-4, 0.0])",
}

# Their pictures are drawn as long as the run has said nothing: multiply a schedule by one of them.
LIVE = {
    "plateau": "ts.plateau(factor=0.5, patience=10)",
    "greedy": "ts.greedy(patience=10)",
    "spike": "ts.spike(above=2.0, factor=0.5)",
    "live": 'ts.live("lr_scale", 1.0)',
}
LIVE_TITLE = "Values that depend on the run (drawn before it has said anything; multiply a schedule by one)"

# What you have, what to write, why. Only what a source says, or what follows from the formula.
CHOICES = [
    ("the length is known, and you want what most published runs use", "warmup_cosine", "Megatron-LM, transformers, optax have it as their standard; the end has to be planned"),
    ("the length is known, and the last bit of loss counts", "decay_to_zero", "linear to exactly 0 was better than cosine to a tenth at high tokens per parameter (2502.15938)"),
    ("the length may change, or checkpoints are to be branched off", "wsd", "the stable phase goes on; a decay of 10 to 20 % gives what a cosine of that length gives (2405.18392)"),
    ("several usable models out of one run", "wsd_s", "each period decays; training goes on from there (2410.05192)"),
    ("the data never ends (continual pre-training)", "infinite", "no warm-up again for new data (2403.08763)"),
    ("a small model is tuned, a large one trained on more tokens", "power", "the same curve whatever the batch and the tokens (2408.13359)"),
    ("fine-tuning with transformers' defaults", "warmup_linear", "what its Trainer does unless it is told otherwise"),
    ("a vision model from scratch, in few epochs", "one_cycle", "1cycle, with the momentum mirrored (1708.07120)"),
    ("an ensemble of snapshots, or a restart now and then", "warm_restarts", "SGDR (1608.03983)"),
    ("a recipe of the ResNet era", "multistep", "divide by 10 at given epochs: `.hold_each(steps_per_epoch)`"),
    ("the best constant learning rate is searched for", "exponential", "a range test: from very low to very high, until the loss diverges"),
    ("the original Transformer", "noam", "1706.03762"),
    ("weight decay beside a decaying learning rate", "adamc", "the ratio of gradient to weight norm stays (2506.02285)"),
    ("a batch that grows in the place of a falling learning rate", "seesaw", "fewer steps for the same tokens (2510.14717)"),
    ("a curve that none of these is", "spline", "through the points that you give, and monotone between them; or `a >> b`, `a * b`, `ts.from_function`"),
]  # fmt: skip

INTRODUCTION = """\
# Gallery

Every shape and recipe: what it looks like, its formula, where it comes from. A recipe is an expression over the shapes;
above its picture stands the one that it is. `t` is the step, `n` the length, `p = t / n`. All arguments are in the docstring:
`help(ts.wsd)`. First a table to choose from, then [recipes](#Recipes), [shapes](#Shapes), and values that depend on the run.

The names of the phases follow from what the curve does: of the same chain written by hand they are the same."""


def described(name: str, code: str = "") -> str:
    """The heading, the first line and the source, from the docstring; of a recipe what the example is."""
    paragraphs = inspect.getdoc(getattr(ts, name)).split("\n\n")
    sources = [part.replace("\n", " ") for part in paragraphs if part.startswith("Source:")]
    made = eval(code, {"ts": ts}) if code else None  # noqa: S307  our own page
    example = [f"Below: `{tidy(brief(made))}`"] if made else []
    return "\n\n".join([f"### {name}", paragraphs[0].replace("\n", " "), *sources, *example])


def choices() -> str:
    """The table "which one should I use"."""
    rows = [f"| {have} | [`ts.{name}`](#{name}) | {why} |" for have, name, why in CHOICES]
    return "\n".join(
        ["## Which one should I use", "", "| you have | write | because |", "| --- | --- | --- |", *rows]
    )


def page() -> str:
    """The notebook, as it is before it is run."""
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell(INTRODUCTION), v4.new_markdown_cell(choices())]
    cells.append(v4.new_code_cell("import tensorsched as ts"))
    for title, examples in (("Recipes", RECIPES), ("Shapes", SHAPES), (LIVE_TITLE, LIVE)):
        cells.append(v4.new_markdown_cell(f"## {title}"))
        for name, code in examples.items():
            shown = described(name, code if examples is RECIPES else "")
            cells += [v4.new_markdown_cell(shown), v4.new_code_cell(code)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02}"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return nbformat.writes(v4.new_notebook(cells=cells, metadata=kernel)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
