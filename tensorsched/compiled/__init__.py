"""Table look-up and optimizer step in one compiled graph."""
