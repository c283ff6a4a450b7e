"""Attach schedules to an optimizer: what it is told, where the values are, what moves them, what is saved.

From the top down; each room knows those below it:

    attach                                  arguments become slots, and these an attachment
    attachment                              the handle: every name that it has, on one screen
    methods/                                what these names do: reading, running, changing, saving
    lr_scheduler                            the same handle for trainers, as a torch LRScheduler
    events, resuming, late_groups           what happens at a step, around a checkpoint, when groups are added
    base                                    the state of an attachment, and how it passes from one to the next
    hooks, rare_steps                       what is on the optimizer
    modes, eager_mode                       where the values are while steps run (the other: compiled/graph_mode.py)
    parts, reactive_parts, filled, decay    slots, and the engines that feed them
    slots                                   the places that follow a schedule
    kept, last_used                         what the last step used, for those who ask afterwards
    movers                                  what runs at every step

Beside them stand small rooms of facts and checks, which nobody has to read first.
"""
