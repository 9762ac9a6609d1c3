"""`mi-crow presets` and `mi-crow generations`: what was saved on the Steer screen."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mi_crow.cli.arguments import add_actions, add_setting, open_workspace, positive
from mi_crow.cli.formatting import moment, number, print_json
from mi_crow.cli.tables import print_facts, print_line, print_list, print_outcome

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations, SavedGeneration

_SHOWN = 20


def add_arguments(parser: ArgumentParser, command: str) -> None:
    what = command.removesuffix("s")
    for name, action in add_actions(
        parser,
        {
            "list": f"list the {command} (default)",
            "show": f"show a {what}",
            "rm": f"delete a {what}",
        },
    ):
        if name != "list" and command == "presets":
            action.add_argument("name")
        elif name != "list":
            action.add_argument("number", type=positive, metavar="ID")
        elif command == "generations":
            add_setting(action, "--limit", _SHOWN, "at most", type=positive)


def run(options: Namespace) -> int:
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(open_workspace(options).annotations_path)
    of = {"presets": _preset, "generations": _generation}[options.command]
    of(annotations, options)
    return 0


def _preset(annotations: "Annotations", options: Namespace) -> None:
    if options.action in (None, "list"):
        presets = annotations.presets()
        columns = ["preset…", "saved", "interventions…"]
        rows = ([p.name, moment(p.updated), _stack(p.interventions)] for p in presets)
        empty = "" if presets else f"no presets yet; {_steer_key('save_preset')} saves one"
        print_list(options.json, [asdict(one) for one in presets], columns, rows, empty)
        return
    preset = annotations.preset(options.name)
    if options.action == "rm":
        annotations.delete_preset(preset.name)
        print_outcome(options.json, {"removed": preset.name}, f"deleted preset {preset.name!r}")
    elif options.json:
        print_json(asdict(preset))
    else:
        print_facts({"preset": preset.name, "saved": moment(preset.updated)})
        for one in preset.interventions:
            print_line(_change(one))
        limits = {"plausible": preset.plausible, "KL budget": preset.kl_budget}
        print_facts({name: number(one) for name, one in limits.items() if one is not None})


def _generation(annotations: "Annotations", options: Namespace) -> None:
    if options.action in (None, "list"):
        found = annotations.generations(getattr(options, "limit", _SHOWN))
        columns = [">ID", "saved", "SAE…", "prompt…", "interventions…"]
        empty = "" if found else f"no saved generations yet; {_steer_key('save')} saves one"
        print_list(options.json, [asdict(one) for one in found], columns, map(_row, found), empty)
        return
    one = annotations.generation(options.number)
    if options.action == "rm":
        annotations.delete_generation(one.id)
        print_outcome(options.json, {"removed": one.id}, f"deleted generation {one.id}")
    elif options.json:
        print_json(asdict(one))
    else:
        _show(one)


def _steer_key(name: str) -> str:
    from mi_crow.cli.commands.app import app_key

    return f"{app_key(f'steer.{name}')} on the Steer screen"


def _row(one: "SavedGeneration") -> list[str]:
    changes = _stack(_interventions(one))
    return [str(one.id), moment(one.created), ", ".join(one.sae_ids), one.prompt, changes]


def _show(one: "SavedGeneration") -> None:
    from mi_crow.mechanistic.concepts.generation_files import heard_texts

    left_out = ("interventions", "messages")
    settings = {key: value for key, value in one.settings.items() if key not in left_out}
    facts = {
        "generation": str(one.id),
        "saved": moment(one.created),
        "model": one.model_id,
        "SAE": ", ".join(one.sae_ids),
        "weights": ", ".join(one.weight_hashes),
        "device": one.device,
        "versions": ", ".join(f"{name} {version}" for name, version in one.versions.items()),
        "seed": str(one.seed),
        **{key.replace("_", " "): str(value) for key, value in settings.items()},
        **{key: number(v) for key, v in one.metrics.items() if isinstance(v, int | float)},
    }
    print_facts({key: value for key, value in facts.items() if value})
    for change in _interventions(one):
        print_line(_change(change))
    for title, text in (
        *heard_texts(one),
        ("baseline", one.baseline),
        ("steered", one.steered),
    ):
        print_line()
        print_line(title, "bold")
        for line in text.splitlines():
            print_line(line)


def _interventions(one: "SavedGeneration") -> list[dict[str, Any]]:
    found = one.settings.get("interventions")
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, dict)]


def _stack(interventions: Any) -> str:
    return ", ".join(_change(one) for one in interventions) or "none"


def _change(one: dict[str, Any]) -> str:
    """`feature:demo-topk/42 add 0.8 max`, or `unreadable`."""
    from mi_crow.errors import MiCrowError
    from mi_crow.mechanistic.steering.interventions import Intervention
    from mi_crow.mechanistic.steering.positions import read_positions

    try:
        found = Intervention.from_json(one)
    except MiCrowError:
        return "unreadable"
    if found.op == "ablate":
        return f"{found.target} ablate{found.timing}"
    if found.code is not None:
        return f"{found.target} call {found.code.words}{found.timing}"
    unit = "" if found.op in ("scale", "project") or found.unit == "latent" else f" {found.unit}"
    against = f" against {found.rivals}" if found.rivals else ""
    where = read_positions(found.scope).describe()
    where = f" {where}" if where else ""
    return f"{found.target} {found.op} {found.value:.4g}{unit}{against}{where}{found.timing}"
