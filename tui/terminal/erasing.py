"""Whether a terminal erases cells in the colour of the background that is set."""

import os
from functools import cache


@cache
def erases_in_colour() -> bool:
    """What terminfo says of $TERM; tmux does it whatever its windows are called."""
    if os.environ.get("TMUX"):
        return True
    try:
        import curses

        curses.setupterm(os.environ.get("TERM") or "dumb", 1)
        return bool(curses.tigetflag("bce") == 1 and curses.tigetstr("ech"))
    except Exception:  # no module, no database, no such terminal: curses.error cannot be named
        return False
