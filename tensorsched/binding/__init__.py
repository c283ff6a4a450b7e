"""L5: the only place that knows param_groups: which values may be tensors, who writes them, and when."""
