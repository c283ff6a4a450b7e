"""Attach schedules to an optimizer: parse arguments, decide float or tensor, write values, hook into step and state."""
