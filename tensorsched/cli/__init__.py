"""The command line: `python -m tensorsched`, or the script `tensorsched`."""
