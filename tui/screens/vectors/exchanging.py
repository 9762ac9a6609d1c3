"""Vectors from files, refined ones, and who uses one: forms whose work the session does."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.bounds import COUNT
from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.mechanistic.vectors.stored import new_path
from tui.screens.concepts.typed_path import typed_path
from tui.screens.runs.forms import finding
from tui.widgets.forms.fields import Advice, Default, FormField, Texts, Values, WrongValueError
from tui.widgets.forms.popup import FormPopup

if TYPE_CHECKING:
    from tui.context import AppContext

_ENDINGS = (".safetensors", ".gguf")


def import_form(context: "AppContext", way: Sequence[str]) -> FormPopup[str]:
    """Asks for a file; dismisses with the name of the vector that was made of it."""
    fields = (
        FormField("path", "file", hint="a .safetensors or .gguf file", required=True),
        FormField("name", "name", hint="letters, digits, . _ -", default=Default("", "the file's")),
        FormField(
            "layer",
            "layer",
            hint="hook point of a single direction, e.g. resid_post.12",
            default=Default("", "as the file says"),
        ),
        FormField("model", "model", hint="that it is for", default=Default("", "as the file says")),
    )

    def study(texts: Texts) -> Advice:
        path = texts["path"].strip()
        candidates = {"path": finding.files(path, _ENDINGS)}
        if not path:
            return Advice({}, candidates)
        return Advice({}, candidates, troubles=_wrong_file(context, texts))

    def submit(values: Values) -> str:
        path = typed_path(values["path"]).absolute()
        name = values["name"] or path.stem
        context.session.call(
            "import_vector",
            path=str(path),
            name=name,
            layer=values["layer"] or None,
            model_id=values["model"] or None,
        )
        return name

    return FormPopup("Import a vector", fields, submit, "Import", study, way=way)


def _wrong_file(context: "AppContext", texts: Texts) -> dict[str, str]:
    """What is wrong with the fields, by their names."""
    try:
        path: Path = typed_path(texts["path"].strip())
        if path.suffix.lower() not in _ENDINGS:
            raise WrongValueError("path", f"{path.name!r} is neither .safetensors nor .gguf")
        if not path.is_file():
            raise WrongValueError("path", f"there is no file {str(path)!r}")
    except MiCrowError as error:
        wrong, stem = {"path": str(error)}, ""
    else:
        wrong, stem = {}, path.stem
    name = texts["name"].strip() or stem
    try:
        if name:
            new_path(context.workspace, name)
    except MiCrowError as error:
        wrong["name"] = f"{error}; choose another name"
    return wrong


def refine_form(context: "AppContext", name: str, way: Sequence[str]) -> FormPopup[str]:
    """Asks how many features of which SAE to keep; dismisses with the name of the new vector."""
    own = context.sae()
    fields = (
        FormField(
            "sae_id",
            "SAE",
            own.sae_id if own is not None else "",
            "of whose features it is made again",
            tuple(sae.sae_id for sae in context.saes()),
            required=True,
        ),
        FormField(
            "keep",
            "features",
            hint="that tell its texts apart best",
            bounds=COUNT,
            default=Default("10", "usual"),
        ),
        FormField("new", "name", hint="letters, digits, . _ -", default=Default("", f"{name}-10")),
    )

    def submit(values: Values) -> str:
        keep = int(values["keep"])
        new = values["new"] or f"{name}-{keep}"
        if values["sae_id"] not in {sae.sae_id for sae in context.saes()}:
            raise NotFoundError(
                f"SAE {values['sae_id']!r} not found", hint="choose one of the list"
            )
        new_path(context.workspace, new)
        context.session.call(
            "refine_vector",
            name=name,
            new=new,
            sae_id=values["sae_id"],
            keep=keep,
            device=context.device,
        )
        return new

    return FormPopup(f"Refine {name}", fields, submit, "Refine", way=way)


def users_of(context: "AppContext", name: str) -> str:
    """Who would miss a vector, as a sentence with a space before it; empty: nobody. Blocks."""
    target = f"vector:{name}"
    on_stack = any(one.target == target for one in context.steered)
    try:
        presets = [
            one.name
            for one in context.annotations.presets()
            if any(held.get("target") == target for held in one.interventions)
        ]
    except MiCrowError:
        presets = []
    users = ["the stack of Steer"] if on_stack else []
    users += [f"the preset {one}" for one in presets]
    if not users:
        return ""
    return f" It is used by {', '.join(users)}, which will not run without it."
