"""torchrun for one job: `python -m mi_crow.jobs.distributed.rank_agent --exchange DIR ...`.

It runs torchrun's own command line and records the ranks that died, which torchrun itself only
prints. It ends with the process that started it, and the ranks end with it.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mi_crow.jobs.distributed.exchange import Exchange
from mi_crow.jobs.process import die_with


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the ranks until they end; 0 when all succeeded."""
    parser = argparse.ArgumentParser(prog="python -m mi_crow.jobs.distributed.rank_agent")
    parser.add_argument("--exchange", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True, help="the process to end with")
    parser.add_argument("--nproc", type=int, required=True)
    arguments = list(sys.argv[1:] if argv is None else argv)
    border = arguments.index("--")  # what follows is for torchrun: the program of each rank
    options, program = parser.parse_args(arguments[:border]), arguments[border + 1 :]
    die_with(options.parent)
    # Slurm signals every process when the time is nearly up. The job's own process hears it and
    # has the ranks save; they, who inherit this, must not die of it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    exchange = ("--exchange", str(options.exchange), "--parent", str(os.getpid()))
    try:
        torchrun(
            [
                "--standalone",
                *("--nproc-per-node", str(options.nproc)),
                *("--local-addr", "127.0.0.1"),  # the machine's own name need not resolve
                *("--log-dir", str(options.exchange)),
                *program,
                *exchange,
            ]
        )
    except ChildFailedError as error:
        Exchange(options.exchange).leave_deaths(_deaths(error.failures))
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _deaths(failures: Any) -> list[dict[str, Any]]:
    """The dead ranks in order of death; last those that torchrun then terminated."""
    found = [
        {"rank": rank, "exit_code": failure.exitcode, "t": failure.timestamp}
        for rank, failure in failures.items()
    ]
    return sorted(found, key=lambda death: (death["exit_code"] == -signal.SIGTERM, death["t"]))


if __name__ == "__main__":
    raise SystemExit(main())
