"""The columns of lists: what each shows, and those that a user can choose from; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mi_crow.errors import UserError


@dataclass(frozen=True)
class Column:
    """One column. A width of 0 takes what is left; columns from the right go first where the
    list is narrower than `from_width`. One that is `extra` shows when somebody chose it."""

    title: str
    width: int = 0
    align: Literal["left", "right"] = "left"
    from_width: int = 0
    help: str = ""
    extra: bool = False

    @property
    def name(self) -> str:
        """What the settings call it."""
        return self.title.casefold()


def _extra(title: str, width: int, help: str, align: Literal["left", "right"] = "right") -> Column:
    return Column(title, width, align, help=help, extra=True)


RUN_COLUMNS: Final = (
    Column("run"),
    Column("model", 22, from_width=66, help="the model that read the texts"),
    Column("tokens", 7, "right", help="tokens whose activations are stored"),
    Column("layers", 6, "right", from_width=44, help="how many layers"),
    Column("size", 9, "right", help="on the disk"),
    _extra("texts", 7, "documents that were read"),
    _extra("stored", 6, "the type of the stored numbers"),
    _extra("source", 20, "where the texts come from", "left"),
    _extra("captured", 16, "when"),
)
SAE_COLUMNS: Final = (
    Column("SAE"),
    Column("model", 22, from_width=66, help="the model that it reads"),
    Column("latents", 7, "right", help="how many features"),
    Column("k", 4, "right", from_width=44, help="active latents a token, as its file says"),
    Column(
        "FVU",
        5,
        "right",
        help="share of the variance that it does not explain, held out; in italics as trained, "
        "or as an import was checked",
    ),
    Column("index", 5, "right", help="whether its features can be looked at"),
    _extra("L0", 6, "active latents a token, as measured on held-out text"),
    _extra("dead", 6, "share of the latents that never fired on held-out text"),
    _extra("recovered", 9, "share of the loss that the model keeps with it, held out"),
    _extra("kind", 12, "its architecture", "left"),
    _extra("layer", 18, "the layer that it reads", "left"),
    _extra("run", 18, "the run that it was trained on", "left"),
    _extra("size", 9, "on the disk"),
)
JOB_COLUMNS: Final = (
    Column("job"),
    Column("state", 14, help="waiting, running, or how it ended"),
    Column("time", 7, "right", help="time left, or when it ended: the time of today, or the day"),
    _extra("created", 16, "when it was asked for"),
    _extra("took", 8, "from its start to its end, or to now"),
    _extra("tries", 5, "how often it was started"),
    _extra("device", 8, "where it runs", "left"),
    _extra("id", 30, "its name among the jobs", "left"),
)
CONCEPT_COLUMNS: Final = (
    Column("concept"),
    Column("feature", 8, "right", help="the number of its feature"),
    Column("conf", 4, "right", help="how sure the name is, 0 to 1"),
    Column("AUROC", 8, "right", from_width=60, help="how well it predicts the label, held out"),
    Column("density", 8, "right", from_width=68, help="share of tokens on which it fires"),
    Column("covers", 6, "right", from_width=54, help="share of all firings that are its own"),
    Column("score", 5, "right", from_width=104, help="held-out AUROC of the proposed name"),
    Column("label", 14, from_width=118, help="the label that its feature predicts best"),
    Column("tags", 16, from_width=110, help="its tags"),
    Column("note", from_width=130, help="what somebody wrote about it"),
    Column("source", 8, from_width=76, help="who named it: user, auto, import, .."),
    Column("updated", 10, from_width=90, help="when it was last changed"),
    _extra("kind", 11, "what kind of feature it is", "left"),
    _extra("layer", 14, "the layer that its feature is of", "left"),
)
LISTS: Final[Mapping[str, tuple[Column, ...]]] = {
    "runs": RUN_COLUMNS,
    "saes": SAE_COLUMNS,
    "jobs": JOB_COLUMNS,
    "concepts": CONCEPT_COLUMNS,
}
"""The lists whose columns can be chosen, by what the settings call them."""


def usual_columns(listed: str) -> tuple[str, ...]:
    """The names of the columns that a list has by itself."""
    return tuple(column.name for column in LISTS[listed] if not column.extra)


def chosen_columns(listed: str, names: Sequence[object]) -> tuple[str, ...]:
    """The columns called `names`, the first one of the list before them: rows go by it.

    Raises UserError for one that the list does not have.
    """
    known = {column.name: column for column in LISTS[listed]}
    found = [next(iter(known))]
    for name in names:
        wanted = str(name).strip().casefold()
        if wanted not in known:
            hint = f"there is {', '.join(known)}"
            raise UserError(f"column {str(name)[:60]!r} of {listed} is not known", hint=hint)
        found.append(wanted)
    return tuple(dict.fromkeys(found))
