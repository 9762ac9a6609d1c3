"""`mi-crow steer --chat`: a conversation, answered plainly and under interventions."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from mi_crow.cli import streams
from mi_crow.cli.commands.causes.text import text_of
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import console, print_line
from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.chat.branches import Branches
from mi_crow.visible import visible

if TYPE_CHECKING:
    from mi_crow.language_model.config import ModelSpec
    from mi_crow.mechanistic.steering.interventions import Intervention
    from mi_crow.store.workspace import Workspace

_WIDE = 100  # columns of a terminal from which on the answers are side by side


def add_chat(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("chat")
    group.add_argument(
        "--chat",
        action="store_true",
        help="TEXT is the next message of the user; the chat template is used, and only what the "
        "assistant says is steered. Without TEXT and --messages: line by line in the terminal",
    )
    group.add_argument(
        "--messages",
        metavar="FILE",
        help="what was said before: a JSON list of messages with role and content, or what an "
        "earlier --chat printed with --json",
    )


def check_chat(options: Namespace) -> None:
    """Raises UserError where there is nothing to continue or to answer."""
    if options.messages and not options.chat:
        raise UserError("--messages is for a chat", hint="give --chat too")
    if options.text is not None or options.messages:
        return
    if not options.chat:
        raise UserError("no text is given", hint="give one in quotes, or `-` to read stdin")
    if options.json or not sys.stdin.isatty():
        raise UserError("no message given", hint="give one in quotes, or --messages FILE")


def run_chat(
    workspace: "Workspace",
    own: "str | ModelSpec",
    interventions: "Sequence[Intervention]",
    device: str,
    sampling: dict[str, Any],
    options: Namespace,
) -> int:
    """Answers one message, or one after the other, with an SAE or a model alone. `sampling`:
    options of `answer`."""
    so_far = Branches.read(options.messages) if options.messages else Branches()
    messages: Iterator[str]
    if options.text is not None:
        messages = iter([text_of(options.text)])
    elif options.messages:
        so_far.check_asks()
        messages = iter([""])
    else:
        messages = _typed()
    from mi_crow.mechanistic.steering.chat.answering import answer
    from mi_crow.mechanistic.steering.fits import all_maxima, check_stack, looked_up
    from mi_crow.mechanistic.steering.loading import load_for_work, load_model
    from mi_crow.mechanistic.steering.run import LOWER
    from mi_crow.store.free_space import explain_shortage

    sae_id = own if isinstance(own, str) else None
    check_stack(workspace, interventions, sae_id)
    all_maxima(workspace, sae_id, looked_up(workspace, interventions, sae_id))
    loaded = load_for_work(workspace, own, device) if isinstance(own, str) else load_model(own)
    for text in messages:
        asked = so_far.asked(text) if text else so_far
        with explain_shortage(f"steering on {loaded.lm.device}", LOWER):
            result = answer(workspace, loaded, asked, interventions, **sampling)
        so_far = Branches.from_json(result["branches"])
        if options.json:
            print_json(result)
        else:
            _show(result["baseline"], result["steered"])
    return 0


def _typed() -> Iterator[str]:
    """Lines of the terminal until an empty one or the end of input."""
    print_line("Type a message; an empty line ends the conversation.", "dim")
    out = streams.out()
    while True:
        out.write("you: ")
        out.flush()
        line = sys.stdin.readline()
        if not line.strip():
            return
        yield line.strip()


def _show(baseline: str, steered: str) -> None:
    """Both answers, side by side where the terminal is wide enough."""
    out = console()
    sides = [("baseline", baseline), ("steered", steered)]
    if not out.is_terminal or out.width < _WIDE:
        for name, text in sides:
            print_line(name, "bold")
            for line in text.strip().splitlines() or [""]:
                print_line(line)
            print_line()
        return
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name, _ in sides:
        table.add_column(name, ratio=1, overflow="fold")
    texts = ["\n".join(visible(line) for line in text.strip().splitlines()) for _, text in sides]
    table.add_row(*map(Text, texts))
    out.print(table)
    print_line()
