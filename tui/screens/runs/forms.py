"""The forms that start jobs: their fields, and from their texts to a job's parameters.

Whether a run, a layer or a name makes sense is for `submit` to say; here texts become numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mi_crow.errors import UserError
from mi_crow.language_model.config import BOS, LONG_DOCUMENTS
from mi_crow.mechanistic.sae.config import ARCHITECTURES, TRANSCODERS
from mi_crow.store.workspace import RunSummary, SaeSummary, Workspace
from tui.widgets.form import FormField, Values


@dataclass(frozen=True)
class JobForm:
    """One form: what it asks, and what its texts mean (kind, parameters, device, name)."""

    title: str
    fields: tuple[FormField, ...]
    parameters: Callable[[Values], dict[str, Any]]
    kind: str

    def submit(self, workspace: Workspace, values: Values) -> str:
        """Starts the job and gives its id. Raises UserError for what does not make sense."""
        from mi_crow.jobs import submit

        params = self.parameters(values)
        name = values.get("name") or None
        return submit(workspace, self.kind, params, values.get("device") or "auto", name)


# Transcoders ask for a second layer: they start on the command line.
_ARCHITECTURES = tuple(name for name in ARCHITECTURES if name not in TRANSCODERS)
_DEVICE = FormField(
    "device", "device", "auto", "auto, cpu, cuda, cuda:1, mps", ("auto", "cuda", "cpu")
)


def capture_form(runs: Sequence[RunSummary]) -> JobForm:
    """Activations of one or more layers of a model over a dataset."""
    models = tuple(dict.fromkeys(["sample", *(run.manifest.model_id for run in runs)]))
    fields = (
        FormField("model", "model", "sample", "hub id, folder, .gguf file, or sample", models),
        FormField(
            "layers",
            "layers",
            "resid_post.2",
            "resid_post.N or a module name; a comma between several",
        ),
        FormField("dataset", "dataset", "sample", "file, folder, hub id, or sample", ("sample",)),
        FormField("split", "split", "train", "of a hub data set"),
        FormField("text_field", "text field", "text", "the column that holds the texts"),
        FormField("limit", "documents", "", "how many at most; empty: all of them"),
        FormField("context_length", "context", "128", "tokens that the model sees at once"),
        FormField(
            "long_documents",
            "longer texts",
            "truncate",
            "truncate them to the context, or split them into windows of it",
            LONG_DOCUMENTS,
        ),
        FormField("bos", "BOS in front", "auto", "auto: as the tokenizer does; yes; no", BOS),
        FormField(
            "dtype",
            "stored as",
            "bf16",
            "int8 is half of bf16, with one scale a token",
            ("bf16", "fp16", "fp32", "int8"),
        ),
        FormField("name", "name", "", "of the new run; empty: made from the time"),
        _DEVICE,
    )

    def parameters(values: Values) -> dict[str, Any]:
        layers = [layer.strip() for layer in values["layers"].split(",") if layer.strip()]
        return {
            "model": {"model": _given(values, "model"), "device": values["device"] or "auto"},
            "dataset": {
                "source": _given(values, "dataset"),
                "split": values["split"] or "train",
                "text_field": values["text_field"] or "text",
                "limit": _whole(values, "limit", "documents") if values["limit"] else None,
            },
            "layers": layers,
            "dtype": values["dtype"],
            "long_documents": values["long_documents"],
            "bos": values["bos"] or "auto",
            "context_length": _whole(values, "context_length", "context"),
            "name": values["name"] or None,
        }

    return JobForm("Capture activations", fields, parameters, "capture")


def train_form(runs: Sequence[RunSummary], selected: str | None) -> JobForm:
    """An SAE on one layer of a run."""
    by_id = {run.run_id: run for run in reversed(runs)}
    run = by_id.get(selected or "") or next(iter(by_id.values()), None)
    layers = tuple(layer.point for layer in run.manifest.layers) if run is not None else ()
    fields = (
        FormField(
            "run_id", "run", run.run_id if run else "", "the activations to train on", tuple(by_id)
        ),
        FormField("layer", "layer", layers[0] if layers else "", "a layer of the run", layers),
        FormField("arch", "architecture", "topk", "how latents are chosen", _ARCHITECTURES),
        FormField("expansion", "expansion", "8", "latents for each input of the layer"),
        FormField("k", "k", "32", "latents that fire on a token, exactly or as the target"),
        FormField("steps", "steps", "1000", "training steps"),
        FormField("batch_size", "batch", "2048", "tokens a step"),
        FormField("name", "name", "", "of the new SAE; empty: made from the time"),
        _DEVICE,
    )

    def parameters(values: Values) -> dict[str, Any]:
        return {
            "run_id": _given(values, "run_id", "run"),
            "layer": _given(values, "layer"),
            "arch": values["arch"],
            "expansion": _number(values, "expansion"),
            "k": _whole(values, "k"),
            "training": {
                "steps": _whole(values, "steps"),
                "batch_size": _whole(values, "batch_size", "batch"),
            },
            "device": values["device"] or "auto",
            "name": values["name"] or None,
        }

    return JobForm("Train an SAE", fields, parameters, "train")


def index_form(saes: Sequence[SaeSummary], selected: str | None) -> JobForm:
    """The feature index of an SAE."""
    fields = (
        _sae_field(saes, selected),
        FormField("run_id", "run", "", "empty: the run that the SAE was trained on"),
        FormField("top_examples", "examples", "20", "strongest examples kept a feature"),
        _DEVICE,
    )

    def parameters(values: Values) -> dict[str, Any]:
        return _sae_parameters(values) | {
            "top_examples": _whole(values, "top_examples", "examples")
        }

    return JobForm("Build the feature index", fields, parameters, "index")


def evaluate_form(saes: Sequence[SaeSummary], selected: str | None) -> JobForm:
    """How well an SAE stands in for the activations."""
    fields = (
        _sae_field(saes, selected),
        FormField("run_id", "run", "", "empty: the run that the SAE was trained on"),
        FormField("documents", "documents", "128", "held-out documents for the loss"),
        _DEVICE,
    )

    def parameters(values: Values) -> dict[str, Any]:
        return _sae_parameters(values) | {"documents": _whole(values, "documents")}

    return JobForm("Evaluate an SAE", fields, parameters, "evaluate")


def _sae_field(saes: Sequence[SaeSummary], selected: str | None) -> FormField:
    ids = tuple(sae.sae_id for sae in reversed(saes))
    chosen = selected if selected in ids else (ids[0] if ids else "")
    return FormField("sae_id", "SAE", chosen, "", ids)


def _sae_parameters(values: Values) -> dict[str, Any]:
    return {
        "sae_id": _given(values, "sae_id", "SAE"),
        "run_id": values["run_id"] or None,
        "device": values["device"] or "auto",
    }


def _given(values: Values, key: str, what: str = "") -> str:
    if not values[key]:
        raise UserError(f"{what or key} is empty", hint="it is needed")
    return values[key]


def _whole(values: Values, key: str, what: str = "") -> int:
    text = values[key].replace(",", "").replace("_", "")
    try:
        return int(text)  # the config that takes it knows its bounds
    except ValueError as error:
        raise UserError(
            f"{what or key} must be a whole number, not {values[key][:40]!r}"
        ) from error


def _number(values: Values, key: str) -> float:
    try:
        return float(values[key])
    except ValueError as error:
        raise UserError(f"{key} must be a number, not {values[key]!r}") from error
