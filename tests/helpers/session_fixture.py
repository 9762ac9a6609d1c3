"""A workspace with the tiny model's SAE in it, and a stand-in for the session's process."""

import sys
from pathlib import Path

from mi_crow.store.workspace import Workspace

SAE_ID = "tiny-topk"

# Speaks the protocol and does as it is told, without a model.
PUPPET = """
import json, os, sys, threading, time

def say(**event):
    sys.stdout.write(json.dumps(event) + "\\n")
    sys.stdout.flush()

interrupted = threading.Event()

def hold(request):
    interrupted.wait(30)
    say(id=request["id"], event="result", stopped=True)

for line in sys.stdin:
    request = json.loads(line)
    op, params = request["op"], request["params"]
    if op == "interrupt":
        interrupted.set()
    elif op == "die":
        sys.stderr.write("loading\\n\\nout of memory, said the puppet\\n")
        sys.stderr.flush()
        os._exit(3)
    elif op == "hold":
        threading.Thread(target=hold, args=[request], daemon=True).start()
    elif op == "chatter":
        sys.stdout.write("a library prints here\\n")
        say(id="nobody", event="token")
        for number in range(params["count"]):
            say(id=request["id"], event="token", text=str(number))
        say(id=request["id"], event="result", said=params["count"])
    elif op == "fail":
        say(id=request["id"], event="error", error="it failed", hint="try", kind=params["kind"])
    else:
        say(id=request["id"], event="result", op=op, pid=os.getpid(), **params)
"""


def puppet_command() -> tuple[str, ...]:
    return (sys.executable, "-c", PUPPET)


def add_tiny_sae(workspace: Workspace, model_dir: Path, sae_id: str = SAE_ID) -> None:
    """Puts a random SAE of the tiny model's second block into the workspace."""
    from tests.helpers.steering_fixture import tiny_sae

    tiny_sae(model=str(model_dir)).save(workspace.make_sae_dir(sae_id, sae_id))
