"""What is wrong with a field for itself: a name that is taken, a run or a file that is not there.

Blocks: for a thread.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mi_crow.language_model.config import DatasetSpec, ModelSpec
from mi_crow.paths import expanded
from mi_crow.store.settings import validate_device
from mi_crow.store.workspace import read_sae_summary

if TYPE_CHECKING:
    from tui.screens.runs.forms.job_form import JobForm, Reading

Check = Callable[[], object]
"""Raises UserError."""


def check_of(form: "JobForm", reading: "Reading", name: str, value: Any) -> Check | None:
    """What checks the `value` of the field `name`; None for one that its own bounds check."""
    from mi_crow.jobs import checks

    workspace = form.at.workspace
    if name == "name" and form.makes is not None:
        return partial(checks.check_free, workspace.parent_of(form.makes), value, form.makes)
    if name.rpartition(".")[2] == "device":
        return partial(validate_device, value)
    if name in form.models:
        gguf = reading.value_beside(name, "gguf_file")
        return partial(checks.check_model, ModelSpec(value, gguf_file=gguf))
    if name.endswith("dataset.source"):
        split = reading.value_beside(name, "split")
        fields = {
            one: found
            for one in ("text_field", "label_field")
            if (found := reading.value_beside(name, one))
        }
        spec = DatasetSpec(value, **({"split": split} if split else {}), **fields)
        return partial(checks.check_dataset, spec)
    if name in ("run_id", "tuned_run") and not (
        "stream" in reading.fields and reading.get("stream")
    ):
        return partial(checks.run_manifest, workspace, value)
    if name == "sae_id":
        return lambda: read_sae_summary(workspace.sae_dir(value))
    if name == "also":
        return lambda: [read_sae_summary(workspace.sae_dir(one)) for one in value]
    if name == "path" and form.kind == "export":
        return partial(checks.check_new_folder, str(expanded(value).absolute()))
    if name == "job.after":
        return partial(workspace.job_dir, value)
    return None
