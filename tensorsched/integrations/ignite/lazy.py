"""The only place that imports ignite: when an event of its own is needed that the caller did not pass."""

from __future__ import annotations

from typing import Any

__all__ = ["default_event", "matplotlib_pyplot"]


def default_event(name: str) -> Any:
    """The event `Events.<name>` of ignite.

    Raises:
        ModuleNotFoundError: ignite is not installed.
    """
    try:
        from ignite.engine import Events
    except ImportError as error:
        raise ModuleNotFoundError(
            f"attach() without an event means ignite's Events.{name}, and pytorch-ignite is not installed; install it "
            "with: pip install pytorch-ignite. (Constructing, get_param() and simulate_values() do without it.)"
        ) from error
    return Events[name]


def matplotlib_pyplot() -> Any:
    """matplotlib.pyplot.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ModuleNotFoundError(
            "plot_values() draws with matplotlib, which is not installed; install it with: pip install matplotlib. "
            "(simulate_values() gives the same numbers without it.)"
        ) from error
    return plt
