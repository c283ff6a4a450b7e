"""Another library's scheduler as schedules."""
