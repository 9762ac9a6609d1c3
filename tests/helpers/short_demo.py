"""The worker of a demo job that takes seconds: fewer texts and steps, the steering not measured.

What it leaves is what the demo leaves: a run, an SAE with its index, an evaluation, names.
"""

import sys
from functools import partial
from pathlib import Path

from mi_crow.jobs.demo import measures, run
from mi_crow.jobs.runner import main
from mi_crow.language_model.config import DatasetSpec

WORKER = (sys.executable, str(Path(__file__)))

if __name__ == "__main__":
    run.STEPS = 60
    run.DatasetSpec = partial(DatasetSpec, limit=240)
    measures.steer_topic = lambda *_: {}
    raise SystemExit(main())
