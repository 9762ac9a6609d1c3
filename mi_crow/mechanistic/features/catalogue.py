"""Every column that the table of features can show: its names, its order, what it says. Torch-free.

The app's table, `mi-crow features --columns` and the conditions of the query language go by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mi_crow.errors import UserError, nearest

Kind = Literal["number", "share", "count", "activation", "score", "text"]
BY_LABEL = "auroc:"  # followed by a label: how well a feature predicts it


@dataclass(frozen=True)
class FeatureColumn:
    """One column. `name` is what people type, `key` its name in the index and in JSON."""

    name: str
    key: str
    title: str
    kind: Kind
    help: str
    order: str = ""  # the index's order by it; empty: `key`

    @property
    def sort(self) -> str:
        return self.order or self.key

    @property
    def is_number(self) -> bool:
        return self.kind != "text"


_C = FeatureColumn
COLUMNS: tuple[FeatureColumn, ...] = (
    _C("feature", "feature", "feature", "number", "its number"),
    _C("density", "density", "density", "share", "share of tokens on which it fires"),
    _C("fires", "fires", "fires", "count", "tokens on which it fires"),
    _C("max", "max_act", "max", "activation", "its greatest activation"),
    _C("mean", "mean_act", "mean", "activation", "its mean activation where it fires"),
    _C("std", "std_act", "std", "activation", "spread of its activation where it fires"),
    _C(
        "meaning",
        "meaning",
        "concept / proposed name",
        "text",
        "its name, else the proposed one, else its label",
        "concept",
    ),
    _C("names", "names", "names", "text", "all its names, the most confident first", "concept"),
    _C("label", "top_label", "best label", "text", "the label that it predicts best"),
    _C("auroc", "top_auroc", "AUROC", "score", "held-out AUROC of its best label"),
    _C(
        "output",
        "output",
        "output",
        "activation",
        "how strongly it steers: `mi-crow steer scores`",
    ),
    _C("norm", "decoder_norm", "norm", "activation", "norm of its decoder row"),
    _C(
        "cosine",
        "encoder_decoder_cosine",
        "cosine",
        "activation",
        "cosine of its encoder and decoder rows",
    ),
    _C("skew", "skew", "skew", "activation", "skew of its effect on the logits"),
    _C("kurtosis", "kurtosis", "kurtosis", "activation", "kurtosis of its effect on the logits"),
    _C("nearest", "nearest_cosine", "nearest", "activation", "cosine with the nearest feature"),
    _C("coactive", "coactive_jaccard", "coactive", "activation", "Jaccard with its best companion"),
    _C("map_x", "map_x", "map x", "activation", "its place on the map, from left to right"),
    _C("map_y", "map_y", "map y", "activation", "its place on the map, from bottom to top"),
    _C("tokens", "promoted", "promotes", "text", "tokens that it promotes most"),
    _C("suppressed", "suppressed", "suppresses", "text", "tokens that it suppresses most"),
    _C("proposed", "proposed", "proposed name", "text", "the name proposed for it", "name_score"),
    _C("kind", "kind", "kind", "text", "kind of feature: token, topic, context, ..", "name_score"),
    _C(
        "score",
        "name_score",
        "score",
        "score",
        "held-out AUROC of its proposed name; with a d: a chat model's detection",
    ),
    _C(
        "detection",
        "detection",
        "detection",
        "score",
        "how well a chat model finds its texts by the explanation: 0.5 by chance",
    ),
    _C(
        "fuzzing",
        "fuzzing",
        "fuzzing",
        "score",
        "how well a chat model finds its words by the explanation: 0.5 by chance",
    ),
    _C(
        "value",
        "value",
        "value",
        "activation",
        "what a name for it would explain: firings, fewer the better its proposed name",
    ),
    _C(
        "layer",
        "layer",
        "layer",
        "text",
        "the layer that it reads; of a crosscoder the one that it writes to most",
    ),
    _C(
        "origin",
        "origin",
        "origin",
        "text",
        "of a crosscoder of two models: shared, base, tuned or unclear",
        "relative_norm",
    ),
    _C(
        "relative_norm",
        "relative_norm",
        "rel. norm",
        "activation",
        "its decoder norms in two models: 0 base only, 1/2 both, 1 tuned only",
    ),
    _C(
        "nu_reconstruction",
        "nu_reconstruction",
        "nu rec.",
        "activation",
        "latent scaling: how much of it the other model's reconstruction holds",
    ),
    _C(
        "nu_error",
        "nu_error",
        "nu error",
        "activation",
        "latent scaling: how much of it the other model's error holds",
    ),
    _C("tags", "tags", "tags", "text", "tags of its names"),
    _C("note", "note", "note", "text", "notes on its names"),
    _C("source", "source", "source", "text", "who named it: user, auto, import, .."),
    _C("confidence", "confidence", "confidence", "activation", "how sure its name is, 0 to 1"),
)
BY_NAME = {column.name: column for column in COLUMNS}
# Of proposed names.
DENSE = 0.2  # a feature that fires on more of the tokens means no one thing
UNCLEAR = "unclear"
KINDS = {
    "token": "fires on certain words",
    "phrase": "fires on a word after a certain one",
    "context": "fires beside certain words",
    "topic": "fires in texts about something",
    "prediction": "fires before tokens that it promotes",
    "position": "fires at a place in the text",
    "punctuation": "fires on marks",
    "dense": f"fires on more than {DENSE:.0%} of the tokens",
    "dead": "never fires",
    UNCLEAR: "nothing stands out",
}
# Names, tags, notes, .. change with the annotations; all others never do.
# Read from the file of proposed names.
OF_PROPOSALS = ("proposed", "kind")
LAYER = "layer"  # read from the table of layers
# Read from the table of latent scaling.
ORIGIN = "origin"
OF_TWO_MODELS = ("relative_norm", "nu_reconstruction", "nu_error")
OF_CONCEPTS = ("names", "tags", "note", "source", "confidence")
DEFAULT = ("feature", "density", "fires", "max", "mean", "meaning", "score", "auroc")


def column_named(name: str, labels: Sequence[str] | None = None) -> FeatureColumn:
    """The column that `name` says, `auroc:LABEL` among them; with `labels` only one of those.

    Raises UserError."""
    if name in BY_NAME:
        return BY_NAME[name]
    label = name.removeprefix(BY_LABEL)
    if name.startswith(BY_LABEL) and label and (labels is None or label in labels):
        return FeatureColumn(name, name, label, "score", f"held-out AUROC for the label {label}")
    if name.startswith(BY_LABEL) and labels is not None:
        hint = f"there is {nearest(label, labels)}" if labels else "it has no labels"
        raise UserError(f"label {label!r} is not in the index", hint=hint)
    known = (*BY_NAME, f"{BY_LABEL}LABEL")
    raise UserError(f"{name!r} is not a column", hint=f"there is {nearest(name, known)}")


def starts_with_least(sort: str) -> bool:
    """Whether an order begins with the first: numbers and texts of features do, figures do not."""
    texts = {column.sort for column in COLUMNS if not column.is_number} - {
        "name_score",
        "relative_norm",
    }
    return sort == "feature" or sort in texts
