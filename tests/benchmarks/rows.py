"""Rows of a benchmark: a figure, the limit that it is wanted to keep, and whether it does."""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One figure. `wanted` is like `<= 1.40`, `>= 3.5`, `< 0.03`, or empty where nothing is."""

    name: str
    value: float
    wanted: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if not self.wanted:
            return None
        sign, limit = self.wanted.split()
        kept = {
            "<=": self.value <= float(limit),
            ">=": self.value >= float(limit),
            "<": self.value < float(limit),
        }
        return kept[sign]

    def line(self) -> str:
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        wanted = f"wanted {self.wanted}" if self.wanted else ""
        return f"{self.name:58} {self.value:9.4f}  {wanted:15} {verdict}".rstrip()


def write_report(out: Path, settings: dict[str, Any], rows: list[Row], **more: Any) -> None:
    """The rows as JSON; readable at any moment, however often it is written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "settings": {name: str(value) for name, value in settings.items() if name != "out"},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": [{**asdict(row), "met": row.met} for row in rows],
        **more,
    }
    scratch = out.with_suffix(".tmp")
    scratch.write_text(json.dumps(report, indent=2) + "\n")
    scratch.replace(out)


def with_sleeping_threads(threads: int) -> None:
    """Starts this script anew unless idle OpenMP threads sleep, which decides it when torch loads.

    Threads that spin take the cores from whoever has its turn.
    """
    wanted = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "OMP_NUM_THREADS": str(threads),
    }
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | wanted)
    torch.set_num_threads(threads)
