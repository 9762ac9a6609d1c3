"""The rows of the one action table, by screen, where they are many; `tui.actions` has them all."""
