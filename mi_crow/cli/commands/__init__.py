"""The commands: one file a command group, each with `add_arguments` and `run`."""
