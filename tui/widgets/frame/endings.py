"""What happened elsewhere: how a job ended and where its result is, who named what; pure."""

from collections.abc import Sequence
from time import localtime, strftime
from typing import TYPE_CHECKING, Final

from tui.flags import of_a_job
from tui.message_log import Place
from tui.preferences.key_words import key
from tui.text import printable

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.mechanistic.concepts.annotations import PastChange

# What a job of each kind makes. The demo's name is not known before it has ended.
_MADE: Final = {
    "capture": "the run {}",
    "train": "the SAE {}",
    "import": "the SAE {}",
    "index": "the index of {}",
    "explain": "names for the features of {}",
    "explanations": "explanations of features of {}",
    "evaluate": "the evaluation of {}",
    "export": "{}",
    "vector": "the vector {}",
    "steer-scores": "output scores of the features of {}",
}
_ON_RUNS: Final = {"capture": "runs", "train": "saes", "evaluate": "saes", "import": "saes"}


def ending_line(job: "JobState") -> str:
    """How a job ended, in one line: `train finished: the SAE small`."""
    name = _made_by(job)
    if job.status == "finished":
        made = _MADE.get(job.kind, "{}").format(name) if name else ""
        return printable(f"{job.kind} finished" + (f": {made}" if made else ""))
    words = " ".join(word for word in (job.kind, name, job.status) if word)
    why = why_it_ended(job)
    return printable(f"{words}: {why}" if why else words)


def why_it_ended(job: "JobState") -> str:
    """Why a job failed or was lost; empty where it was not."""
    if job.status == "lost":
        from mi_crow.jobs.status import WHY_LOST

        return job.error or WHY_LOST
    return of_a_job(job.error or "") if job.status == "failed" else ""


def next_step(job: "JobState") -> str:
    """What to do once a job has ended, where there is something to do."""
    if job.status == "finished" and job.kind == "import" and _made_by(job):
        return f"{key('runs.new')} then {key('new.index')} on Runs builds its index"
    if job.status == "lost" and job.resumable:
        return f"{key('runs.resume')} on Runs resumes it"
    return printable(of_a_job(job.hint)) if job.status == "failed" else ""


def way_there(job: "JobState") -> str:
    """The keys that show a job that ended, or what it made, from wherever one is."""
    shows = "shows the job" if place_of(job).rows == "jobs" else "opens it"
    return f"{key('app.messages')} then {key('list.open')} {shows}"


def news_line(changes: "Sequence[PastChange]", reader: str) -> str:
    """What others changed, newest first: `ada, 14:02:11: name “sails” of feature 3, and 2 more`;
    `reader` is the user's own name."""
    latest = changes[0]
    who = "you, elsewhere" if latest.actor == reader else latest.actor
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{who}, {strftime('%H:%M:%S', localtime(latest.t))}: {latest.what}{more}"


def place_of(job: "JobState") -> Place:
    """Where the result of a job that ended can be seen; the job itself when it made nothing."""
    name = _made_by(job)
    if job.status == "finished" and name:
        if job.kind in ("index", "explain", "explanations", "steer-scores"):
            return Place("features", name)
        if job.kind in _ON_RUNS:
            return Place("runs", name, _ON_RUNS[job.kind])
    return Place("runs", job.job_id, "jobs")


def _made_by(job: "JobState") -> str:
    """The name of the run or SAE that a job made or worked on; empty where it has none."""
    return str(job.output or job.name or job.params.get("sae_id") or "")
