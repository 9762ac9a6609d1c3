"""Finding a stack by name: a saved preset, an earlier measurement, or a JSON file. Torch-free."""

from dataclasses import dataclass
from typing import Any

from mi_crow.errors import CorruptDataError, NotFoundError, UserError, nearest
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.measure.results import list_measurements
from mi_crow.paths import expanded
from mi_crow.store.atomic import read_json
from mi_crow.store.workspace import Workspace


@dataclass(frozen=True)
class NamedStack:
    """A stack with its constraints."""

    interventions: tuple[dict[str, Any], ...]
    plausible: float | None = None
    kl_budget: float | None = None


def stack_named(workspace: Workspace, name: str) -> NamedStack:
    """The preset with this name, else the winner of the measurement, else what the file holds: a
    list of interventions, or an object with `interventions` and perhaps `plausible`, `kl_budget`.

    Raises NotFoundError, and UserError for a file that holds something else.
    """
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(workspace.annotations_path)
    try:
        presets = {one.name: one for one in annotations.presets()}
    finally:
        annotations.close()
    if name in presets:
        held = presets[name]
        stack = tuple(dict(one) for one in held.interventions)
        return NamedStack(stack, held.plausible, held.kl_budget)
    measured = {one["name"]: one["result"] for one in list_measurements(workspace)}
    if name in measured:
        return _stack_in(_winner(measured[name]), name)
    path = expanded(name)
    if path.suffix == ".json" or path.is_file():
        try:
            return _stack_in(read_json(path), name)
        except CorruptDataError as error:
            raise UserError(f"{name!r} is not a JSON file", hint=str(error)) from error
    known = [*presets, *measured]
    hint = (
        f"there is {nearest(name, known)}" if known else "give a preset, a JSON file or --feature"
    )
    raise NotFoundError(f"preset {name!r} not found", hint=hint)


def _winner(result: dict[str, Any]) -> Any:
    """The stack that a measurement found best."""
    if "interventions" in result:
        return result
    arms = result.get("arms") or []
    return next((arm for arm in arms if arm["name"] == result.get("best")), *arms[:1])


def _stack_in(held: Any, name: str) -> NamedStack:
    stack = held if isinstance(held, list) else None
    more: dict[str, Any] = {}
    if isinstance(held, dict):
        stack = held.get("interventions")
        more = {key: held.get(key) for key in ("plausible", "kl_budget")}
    if not isinstance(stack, list) or not stack:
        raise UserError(
            f"{name!r} holds no interventions", hint='write {"interventions": [..]} or a list'
        )
    if not all(value is None or isinstance(value, int | float) for value in more.values()):
        raise UserError(f"a constraint in {name!r} is not a number", hint="e.g. 0.1, or null")
    return NamedStack(tuple(Intervention.from_json(one).as_json() for one in stack), **more)
