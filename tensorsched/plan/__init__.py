"""Several attachments as one run."""
