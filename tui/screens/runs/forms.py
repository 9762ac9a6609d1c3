"""The forms that start jobs: their fields, and how a job's parameters follow from the values.

Whether a run, a layer or a name makes sense is for `submit` to say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mi_crow.bounds import COUNT, EXPANSION, SIZE, Bounds
from mi_crow.language_model.config import BOS, LONG_DOCUMENTS
from mi_crow.mechanistic.sae.config import ARCHITECTURES, FORM_STEPS, TRANSCODERS
from mi_crow.store.workspace import RunSummary, SaeSummary, Workspace
from tui.widgets.forms.fields import FormField, Values


@dataclass(frozen=True)
class JobForm:
    """One form: what it asks for, and the parameters of the job that its values mean."""

    title: str
    fields: tuple[FormField, ...]
    parameters: Callable[[Values], dict[str, Any]]
    kind: str

    def submit(self, workspace: Workspace, values: Values) -> str:
        """Starts the job and gives its id. Raises UserError for what does not make sense."""
        from mi_crow.jobs import submit

        params = self.parameters(values)
        return submit(workspace, self.kind, params, values["device"], values.get("name"))


# Transcoders ask for a second layer: they start on the command line.
_ARCHITECTURES = tuple(name for name in ARCHITECTURES if name not in TRANSCODERS)
_DEVICE = FormField(
    "device",
    "device",
    "auto",
    "auto, cpu, cuda, cuda:1, mps",
    ("auto", "cuda", "cpu"),
    empty="auto",
)


def _name(of: str) -> FormField:
    return FormField("name", "name", "", f"of the new {of}; empty: made from the time", empty=None)


def _number(name: str, label: str, default: str, hint: str, bounds: Bounds = SIZE) -> FormField:
    return FormField(name, label, default, hint, bounds=bounds, required=True)


def capture_form(runs: Sequence[RunSummary]) -> JobForm:
    """Activations of one or more layers of a model over a dataset."""
    models = tuple(dict.fromkeys(["sample", *(run.manifest.model_id for run in runs)]))
    fields = (
        FormField(
            "model",
            "model",
            "sample",
            "hub id, folder, .gguf file, or sample",
            models,
            required=True,
        ),
        FormField(
            "layers",
            "layers",
            "resid_post.2",
            "resid_post.N or a module name; a comma between several",
        ),
        FormField(
            "dataset",
            "dataset",
            "sample",
            "file, folder, hub id, or sample",
            ("sample",),
            required=True,
        ),
        FormField("split", "split", "train", "of a hub dataset", empty="train"),
        FormField("text_field", "text field", "text", "the column with the texts", empty="text"),
        FormField(
            "limit",
            "documents",
            "",
            "how many at most; empty: all of them",
            bounds=COUNT,
            empty=None,
        ),
        _number("context_length", "context", "128", "tokens that the model sees at once"),
        FormField(
            "long_documents",
            "longer texts",
            "truncate",
            "truncate them to the context, or split them into windows of it",
            LONG_DOCUMENTS,
        ),
        FormField(
            "bos",
            "BOS in front",
            "auto",
            "auto: as the tokenizer does; yes; no",
            BOS,
            empty="auto",
        ),
        FormField(
            "dtype",
            "stored as",
            "bf16",
            "int8 is half of bf16, with one scale a token",
            ("bf16", "fp16", "fp32", "int8"),
        ),
        _name("run"),
        _DEVICE,
    )

    def parameters(values: Values) -> dict[str, Any]:
        layers = [layer.strip() for layer in values["layers"].split(",") if layer.strip()]
        return {
            "model": {"model": values["model"], "device": values["device"]},
            "dataset": {
                "source": values["dataset"],
                "split": values["split"],
                "text_field": values["text_field"],
                "limit": values["limit"],
            },
            "layers": layers,
            "dtype": values["dtype"],
            "long_documents": values["long_documents"],
            "bos": values["bos"],
            "context_length": values["context_length"],
            "name": values["name"],
        }

    return JobForm("Capture activations", fields, parameters, "capture")


def train_form(runs: Sequence[RunSummary], selected: str | None) -> JobForm:
    """An SAE on one layer of a run."""
    by_id = {run.run_id: run for run in reversed(runs)}
    run = by_id.get(selected or "") or next(iter(by_id.values()), None)
    layers = tuple(layer.point for layer in run.manifest.layers) if run is not None else ()
    fields = (
        FormField(
            "run_id",
            "run",
            run.run_id if run else "",
            "the activations to train on",
            tuple(by_id),
            required=True,
        ),
        FormField(
            "layer",
            "layer",
            layers[0] if layers else "",
            "a layer of the run",
            layers,
            required=True,
        ),
        FormField("arch", "architecture", "topk", "how latents are chosen", _ARCHITECTURES),
        _number("expansion", "expansion", "8", "latents per input of the layer", EXPANSION),
        _number("k", "k", "32", "latents that fire on a token, exactly or as the target"),
        _number("steps", "steps", str(FORM_STEPS), "training steps", COUNT),
        _number("batch_size", "batch", "2048", "tokens per step"),
        _name("SAE"),
        _DEVICE,
    )

    def parameters(values: Values) -> dict[str, Any]:
        return {
            "run_id": values["run_id"],
            "layer": values["layer"],
            "arch": values["arch"],
            "expansion": values["expansion"],
            "k": values["k"],
            "training": {"steps": values["steps"], "batch_size": values["batch_size"]},
            "device": values["device"],
            "name": values["name"],
        }

    return JobForm("Train an SAE", fields, parameters, "train")


def index_form(saes: Sequence[SaeSummary], selected: str | None) -> JobForm:
    """The feature index of an SAE."""
    examples = _number("top_examples", "examples", "20", "top activations kept per feature")
    return _sae_form("Build the feature index", "index", saes, selected, examples)


def evaluate_form(saes: Sequence[SaeSummary], selected: str | None) -> JobForm:
    """How well an SAE reconstructs the activations."""
    documents = _number("documents", "documents", "128", "held-out documents for the loss")
    return _sae_form("Evaluate an SAE", "evaluate", saes, selected, documents)


def _sae_form(
    title: str, kind: str, saes: Sequence[SaeSummary], selected: str | None, number: FormField
) -> JobForm:
    """A form for an SAE, a run, a device and one `number`; all of it goes to the job."""
    ids = tuple(sae.sae_id for sae in reversed(saes))
    chosen = selected if selected in ids else (ids[0] if ids else "")
    fields = (
        FormField("sae_id", "SAE", chosen, "", ids, required=True),
        FormField("run_id", "run", "", "empty: the run that the SAE was trained on", empty=None),
        number,
        _DEVICE,
    )
    return JobForm(title, fields, dict, kind)
