"""L7: tensorsched inside other frameworks; each module imports its framework only where it needs it."""
