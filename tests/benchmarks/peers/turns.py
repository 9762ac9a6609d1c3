"""Takes turns with another process: works a block of steps, then waits to be asked again.

Importing this turns everything that a library prints to stderr; answers go to stdout as JSON lines.
"""

import json
import sys
import time

_answers, sys.stdout = sys.stdout, sys.stderr


def answer(**fields):
    _answers.write(json.dumps(fields) + "\n")
    _answers.flush()


class Turns:
    """`begin_step()` goes at the beginning of every step of a trainer's own loop.

    After `warm` steps it waits, and after every `steps` more it answers with the seconds of one.
    Ends the process when nobody asks any more.
    """

    def __init__(self, steps, warm, wait=lambda: None):
        """`wait` returns when the device has done everything."""
        self._steps, self._left, self._began, self._wait = steps, warm, None, wait

    def begin_step(self):
        if self._left == 0:
            self._wait()
            if self._began is None:
                answer(ready=True)
            else:
                answer(seconds=(time.perf_counter() - self._began) / self._steps)
            if not sys.stdin.readline():
                sys.exit()
            self._left, self._began = self._steps, time.perf_counter()
        self._left -= 1
