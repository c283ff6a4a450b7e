"""A fuzzer of what comes from outside; `python -m tests.fuzz` runs it."""
