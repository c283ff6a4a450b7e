"""What schedules look like: in matplotlib, in a notebook, on a terminal."""
