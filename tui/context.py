"""What all screens share: the workspace, the open SAE, its index, the session, the latest scan.

Only the message pump changes the fields; threads get values from here and post messages back.
Nothing heavy is imported before it is used: duckdb comes with the first index, in a thread.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual.message import Message
from textual.message_pump import MessagePump

from mi_crow.causes import sentence_of
from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.store.unreadable import Unreadable
from mi_crow.store.workspace import RunSummary, SaeSummary, Workspace
from tui.action_tables.writing import ANNOTATIONS, FILES
from tui.messages import ModelAlone, SessionChanged, SessionState
from tui.watch import Scan

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.removing import Unfinished
    from mi_crow.mechanistic.concepts.annotations import Annotations, PastChange
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import FeatureRow
    from mi_crow.mechanistic.steering.interventions import Intervention
    from mi_crow.session.client import SessionClient


@dataclasses.dataclass(frozen=True)
class ConceptsLook:
    """What one look at the annotations found."""

    version: int | None  # grows with every change; None while nobody has named anything
    notice: str | None  # the file was replaced or removed
    tagging_off: str | None  # why nothing can be named
    news: "Sequence[PastChange]" = ()  # what others changed since the last look, newest first


class AppContext:
    """The state that screens read. Screens `subscribe` and get every change as a message."""

    def __init__(
        self, workspace: Workspace, sae_id: str | None = None, device: str = "auto"
    ) -> None:
        self.workspace = workspace
        self.device = device  # where models and jobs run unless somebody says another
        self.sae_id = sae_id
        self.features: FeatureStore | None = None
        self.session_state = SessionState()
        self.tagging_off: str | None = None  # why nothing can be named, as of the last look
        self.trouble: tuple[str, str] = (
            "",
            "",
        )  # what is wrong with the workspace, and what follows
        self.read_only = ""  # why nothing in the workspace can be changed
        self.steered: tuple[Intervention, ...] = ()  # what acts on the Steer screen
        self._scan = Scan()
        self.has_looked = False  # before the first look an empty workspace and a full one are alike
        self._listeners: list[MessagePump] = []
        self._annotations: Annotations | None = None
        self._seen: tuple[int, tuple[int, int]] | None = None  # of the annotations: version, mark
        self._session: SessionClient | None = None
        self._lock = threading.RLock()  # annotations and session are made by whoever comes first
        self._loading = threading.Lock()  # one model load at a time
        self._post: Callable[[Message], object] = lambda message: None

    def why_refused(self, action: str) -> str:
        """Why what cannot be written forbids the action with this id; empty when nothing does."""
        if action in ANNOTATIONS and self.tagging_off:
            return self.tagging_off
        return self.read_only if action in ANNOTATIONS or action in FILES else ""

    def bind(self, post: Callable[[Message], object]) -> None:
        """Gives the thread-safe way to the app's message queue."""
        self._post = post

    # What the last scan of the workspace found.

    def jobs(self) -> "tuple[JobState, ...]":
        return self._scan.jobs

    def runs(self) -> tuple[RunSummary, ...]:
        return self._scan.runs

    def saes(self) -> tuple[SaeSummary, ...]:
        return self._scan.saes

    def unreadable(self, what: str) -> tuple[Unreadable, ...]:
        """The runs (`what` is "run") or SAEs ("SAE") that cannot be read, with why."""
        return tuple(one for one in self._scan.unreadable if one.what == what)

    def sae(self) -> SaeSummary | None:
        """The summary of the open SAE, once the workspace was scanned."""
        return self.find_sae(self.sae_id)

    def find_sae(self, sae_id: str | None) -> SaeSummary | None:
        return next((sae for sae in self._scan.saes if sae.sae_id == sae_id), None)

    def find_run(self, run_id: str | None) -> RunSummary | None:
        return next((run for run in self._scan.runs if run.run_id == run_id), None)

    def find_job(self, job_id: str | None) -> "JobState | None":
        return next((job for job in self._scan.jobs if job.job_id == job_id), None)

    def usual_model(self) -> ModelAlone | None:
        """The model that is meant where no SAE is open: that of the newest run."""
        runs = self._scan.runs
        if not runs:
            return None
        return ModelAlone(runs[-1].manifest.model_id, runs[-1].manifest.revision)

    def unfinished(self, what: str) -> "tuple[Unfinished, ...]":
        """The folders of runs (`what` is "run") or SAEs ("SAE") that nothing has finished."""
        return tuple(one for one in self._scan.unfinished if one.what == what)

    def set_scan(self, scan: Scan) -> None:
        """Keeps what a scan found; called by the app's message pump only."""
        self._scan = scan
        self.has_looked = True

    # Messages to the screens.

    def subscribe(self, listener: MessagePump) -> None:
        if listener not in self._listeners:
            self._listeners.append(listener)

    def unsubscribe(self, listener: MessagePump) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    def publish(self, message: Message) -> None:
        """Posts a copy of the dataclass `message` to every subscriber."""
        for listener in self._listeners:
            listener.post_message(dataclasses.replace(message))  # type: ignore[type-var]

    # Databases.

    @property
    def annotations(self) -> "Annotations":
        """The concepts, presets and generations; opened on first use, from any thread."""
        with self._lock:
            if self._annotations is None:
                from mi_crow.mechanistic.concepts.annotations import Annotations

                self._annotations = Annotations(self.workspace.annotations_path)
            return self._annotations

    def look_at_concepts(self) -> ConceptsLook:
        """What changed in the annotations. Raises MiCrowError where they cannot be read."""
        annotations, path = self._annotations, self.workspace.annotations_path
        version = notice = None
        news: Sequence[PastChange] = ()
        if path.exists() or annotations is not None:
            annotations = self.annotations
            version = annotations.data_version()
            news = self._news(annotations, version)
            notice = annotations.take_notice()
            reason = annotations.read_only()
        else:
            from mi_crow.mechanistic.concepts.annotations_disk import write_obstacle

            reason = write_obstacle(path)
        return ConceptsLook(version, notice, reason, news)

    def _news(self, annotations: "Annotations", version: int) -> "Sequence[PastChange]":
        """What others changed since the last call."""
        if self._seen is not None and self._seen[0] == version:
            return ()
        before, mark = self._seen, annotations.mark()
        self._seen = version, mark
        if before is None or before[1][0] != mark[0]:  # the file is another
            return ()
        return annotations.changes_of_others(before[1][1])

    def read_index(self, sae_id: str) -> "FeatureStore":
        """The index of `sae_id`, opened. Blocks: call it in a thread."""
        from mi_crow.mechanistic.features.queries import FeatureStore

        return FeatureStore.open(self.workspace, sae_id, self.annotations)

    def rows_of(self, sae_id: str | None, features: Sequence[int]) -> "dict[int, FeatureRow]":
        """The rows of some features of an SAE, with the names that they have now, and of an SAE
        over several layers their layers; none while the index of another is open. Blocks."""
        from tui.widgets.lists.layers import with_layers

        store = self.features
        if store is None or not features or store.meta().sae_id != sae_id:
            return {}
        store.refresh_concepts()
        total = store.meta().n_features
        own = [one for one in features if one < total]
        return {row.feature: row for row in store.rows(own, with_layers(store))}

    def weights_of(self, sae_id: str) -> str | None:
        """The hash of an SAE's weights; None without them. Reads the file the first time: call it
        in a thread."""
        from mi_crow.mechanistic.sae.weights_hash import WeightsFile

        file = WeightsFile.of(self.workspace.saes_dir / sae_id)
        return file.sha256() if file is not None else None

    # The model session.

    @property
    def session(self) -> "SessionClient":
        """The client of the model session; made on first use, its process starts with a request."""
        with self._lock:
            if self._session is None:
                from mi_crow.session.client import SessionClient

                self._session = SessionClient(self.workspace)
            return self._session

    @property
    def session_is_ready(self) -> bool:
        """Whether the session holds the open SAE, so that nothing has to be loaded first."""
        state = self.session_state
        return state.phase == "ready" and state.sae_id == (self.sae_id or "")

    def ready_session(
        self, sae_id: str | None = None, alone: ModelAlone | None = None
    ) -> "SessionClient":
        """The session with `sae_id`, or else the open SAE, and its model loaded; with the model
        `alone` where one is given. Blocks: call it in a thread.

        Posts SessionChanged on the way. Raises NotFoundError when no SAE is open, and what the
        session raises when the model cannot be loaded.
        """
        from mi_crow.mechanistic.sae.weights_hash import WeightsFile

        sae_id = (sae_id or self.sae_id or "") if alone is None else ""
        if not sae_id and alone is None:
            raise NotFoundError("no SAE is open", hint="train one or open one on the Runs screen")
        asked = {"sae_id": sae_id} if alone is None else dataclasses.asdict(alone)
        with self._loading:
            client = self.session
            state = self.session_state
            weights = WeightsFile.of(self.workspace.saes_dir / sae_id) if sae_id else None
            wanted = ("ready", sae_id, weights, alone)
            held = (state.phase, state.sae_id, state.weights, state.alone)
            if held == wanted and client.alive:
                return client
            self._set_session(SessionState("loading", sae_id, alone=alone))
            try:
                if not client.alive:
                    client.start()
                loaded = client.call("load", **asked, device=self.device)
            except (MiCrowError, OSError) as error:
                detail = sentence_of(error)
                called = self.session_state.sae_id  # it may have been renamed meanwhile
                self._set_session(SessionState("died", called, detail=detail, alone=alone))
                raise
            called = self.session_state.sae_id
            self._set_session(
                SessionState(
                    "ready",
                    called,
                    str(loaded.get("model_id", "")),
                    str(loaded.get("layer", "")),
                    str(loaded.get("device", "")),
                    revision=loaded.get("revision"),
                    weights=weights,
                    alone=alone,
                )
            )
            return client

    def check_session(self) -> None:
        """Notices a session process that died by itself; cheap."""
        if self.session_state.phase == "ready" and not self.session.alive:
            self._set_session(
                SessionState(
                    "died",
                    self.session_state.sae_id,
                    alone=self.session_state.alone,
                    detail="the model session ended; the next request restarts it",
                )
            )

    def rename_in_session(self, old: str, new: str) -> None:
        """The session says of what it holds that it is called `new`. Its file is another one by its
        path, so that the next request loads the SAE again, into the model that is there."""
        if self.session_state.sae_id == old:
            self._set_session(dataclasses.replace(self.session_state, sae_id=new))

    def _set_session(self, state: SessionState) -> None:
        self.session_state = state  # one reference: safe to swap from a thread
        self._post(SessionChanged(state))

    def close(self) -> None:
        """Ends the session process and closes the databases."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None
