"""Messages from the app to its screens. Values inside are frozen; screens get a copy each.

They do not bubble: the app hears some of them itself and would send them in circles. Nobody
compares them, and methods that nobody calls would be compiled at each start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.message import Message

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.mechanistic.sae.weights_hash import WeightsFile
    from mi_crow.store.workspace import RunSummary, SaeSummary


@dataclass(frozen=True)
class ModelAlone:
    """A model that is used without an SAE."""

    model: str
    revision: str | None = None


SessionPhase = Literal["off", "loading", "ready", "died"]


@dataclass(frozen=True)
class SessionState:
    """What the model session is doing. `detail` is a sentence when it died."""

    phase: SessionPhase = "off"
    sae_id: str = ""
    model_id: str = ""
    layer: str = ""
    device: str = ""
    detail: str = ""
    revision: str | None = None
    weights: "WeightsFile | None" = None  # of the SAE, as it was loaded
    alone: "ModelAlone | None" = None  # the model that was asked for without an SAE


@dataclass(eq=False, repr=False)
class ColumnsChanged(Message, bubble=False):
    """The settings name other columns: for the table of features, where `features` is not None,
    and for those `lists`."""

    features: tuple[str, ...] | None
    lists: Mapping[str, tuple[str, ...]]


@dataclass(eq=False, repr=False)
class KeysChanged(Message, bubble=False):
    """Actions have other keys: what names keys says others."""


@dataclass(eq=False, repr=False)
class SaeChanged(Message, bubble=False):
    """Another SAE is open, or its index was built or rebuilt. `error` says why there is none."""

    sae_id: str | None
    ready: bool  # context.features can be asked
    error: str = ""


@dataclass(eq=False, repr=False)
class ConceptsChanged(Message, bubble=False):
    """Somebody, perhaps another process, changed the annotations."""


@dataclass(eq=False, repr=False)
class JobsChanged(Message, bubble=False):
    """The jobs of the workspace, oldest first."""

    jobs: "tuple[JobState, ...]"


@dataclass(eq=False, repr=False)
class WorkspaceChanged(Message, bubble=False):
    """The runs and SAEs that the workspace holds."""

    runs: "tuple[RunSummary, ...]"
    saes: "tuple[SaeSummary, ...]"


@dataclass(eq=False, repr=False)
class WorkspaceBack(Message, bubble=False):
    """The workspace can be read again: what a pane could not read is asked for once more."""


@dataclass(eq=False, repr=False)
class FilesChanged(Message, bubble=False):
    """Something in the folder of a run or an SAE changed that is not in the lists: a note."""


@dataclass(eq=False, repr=False)
class SaeRenamed(Message, bubble=False):
    """An SAE has another id; what names it has to follow."""

    old: str
    new: str


@dataclass(eq=False, repr=False)
class SessionChanged(Message, bubble=False):
    """The model session started, got ready or died."""

    state: SessionState


@dataclass(eq=False, repr=False)
class OpenFeature(Message, bubble=False):
    """To the Features screen: show this feature."""

    feature: int | None  # None: the one that is open
    in_table: bool = False  # where there is no room for both, the table that it is in


@dataclass(eq=False, repr=False)
class ShowInRuns(Message, bubble=False):
    """To the Runs screen: put the cursor on this row."""

    rows: str  # runs | saes | jobs
    key: str


@dataclass(eq=False, repr=False)
class ShowQuery(Message, bubble=False):
    """To the Features screen: show what this query finds."""

    text: str


@dataclass(eq=False, repr=False)
class SendToSteer(Message, bubble=False):
    """To the Steer screen: put this feature on the stack."""

    feature: int
    sae_id: str | None = None  # whose it is; None: the open one's
    more: tuple[int, ...] = ()  # of the same SAE, below it on the stack
    group: str = ""  # one target in the place of these features: group:3+7, tag:my-sae/weather


@dataclass(eq=False, repr=False)
class LayerToSteer(Message, bubble=False):
    """To the Steer screen: put this raw layer on the stack."""

    layer: str


@dataclass(eq=False, repr=False)
class VectorToSteer(Message, bubble=False):
    """To the Steer screen: put this vector of the workspace on the stack."""

    name: str


@dataclass(eq=False, repr=False)
class VectorToInspect(Message, bubble=False):
    """To the Inspect screen: show this vector as a row of the grid."""

    name: str


@dataclass(eq=False, repr=False)
class CaptureLayer(Message, bubble=False):
    """To the Runs screen: open the form of a capture of this layer."""

    model_id: str
    layer: str


@dataclass(eq=False, repr=False)
class CompareTexts(Message, bubble=False):
    """To the Inspect screen: ask for two texts or sets of texts to compare."""


@dataclass(eq=False, repr=False)
class SendToInspect(Message, bubble=False):
    """To the Inspect screen: look for this feature, in `text` when that is given."""

    feature: int | None = None
    text: str | None = None
