"""`mi-crow app`: what an open app shows, and driving it from a script or a second pane."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mi_crow.cli.arguments import add_actions, feature_number, workspace_path
from mi_crow.cli.formatting import count, moment, print_json
from mi_crow.cli.tables import print_facts, print_line, print_list, print_table
from mi_crow.errors import NotFoundError
from mi_crow.remote.client import Apps, OpenApp, ask, open_apps, pick_app
from mi_crow.remote.wire import QUIT
from mi_crow.store.workspace import Workspace

ACTIONS = {
    "state": "what the app shows (the default)",
    "list": "the open apps",
    "open-feature": "open a feature on the Features screen",
    "filter": "filter the table of features",
    "show": "go to a screen",
    "actions": "the actions that the app can do now",
    "do": "do one of them",
    "quit": "quit the app; jobs keep running",
}


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.description = (
        "Drive the open app. With several, the newest on this workspace, else the newest of all; "
        "with --workspace only one that is open there."
    )
    for name, action in add_actions(parser, ACTIONS):
        if name == "open-feature":
            action.add_argument("sae", metavar="SAE", help="SAE id")
            action.add_argument("feature", type=feature_number, help="feature index")
        elif name == "filter":
            action.add_argument("query", help="query as in the app; empty for none")
        elif name == "show":
            action.add_argument(
                "screen", help="runs, features, inspect, steer, concepts or control"
            )
        elif name == "do":
            action.add_argument("name", metavar="NAME", help="as `mi-crow app actions` lists it")


def run(options: Namespace) -> int:
    apps = open_apps()
    if options.action == "list":
        _print_apps(apps, options.json)
        return 0
    workspace = Workspace.locate(workspace_path(options))
    app = pick_app(apps, workspace, required=options.workspace is not None)
    action = options.action or "state"
    answer = ask(app, action, **_arguments(action, options))
    if options.json:
        print_json(answer)
    else:
        _print(action, answer, app)
    return 0


def _arguments(action: str, options: Namespace) -> dict[str, Any]:
    names = {
        "open-feature": ("sae", "feature"),
        "filter": ("query",),
        "show": ("screen",),
    }.get(action, ())
    if action == "do":
        return {"action": options.name}
    return {name: getattr(options, name) for name in names}


def _print_apps(apps: Apps, as_json: bool) -> None:
    if not apps.found and not apps.silent and not as_json:
        raise NotFoundError("no app is open", hint="mi-crow opens one")
    known = [app.greeting for app in apps.found]
    print_list(
        as_json,
        [vars(greeting) for greeting in known],
        [">process", "opened", "workspace…"],
        [[str(one.pid), moment(one.started), one.workspace] for one in known],
        "no open app answers",
    )
    if apps.silent and not as_json:
        print_line(f"{apps.silent} more that does not answer, perhaps stopped with ctrl+z", "dim")


def _print(action: str, answer: dict[str, Any], app: OpenApp) -> None:
    if action == "state":
        _print_state(answer)
    elif action == "actions":
        rows = [
            [one["action"], one["help"], {True: "yes", False: "no", None: ""}[one["possible"]]]
            for one in answer["actions"]
        ]
        print_table(["action", "what…", "possible"], rows)
    elif action == "open-feature":
        print_line(f"feature {answer['feature']} of {answer['sae']} is open")
    elif action == "filter":
        print_line(f"{count(answer['shown'])} of {count(answer['total'])} features match")
    elif action == "show":
        print_line(f"{answer['screen'].title()} is shown")
    elif answer.get(QUIT):  # also after `do app.quit`
        print_line(f"the app on {app.greeting.workspace} has ended")
    else:
        popup = f", {answer['popup']!r} open" if answer["popup"] else ""
        print_line(f"done: {answer['action']}, on {answer['screen'].title()}{popup}")
        for one in answer["told"]:
            print_line(f"{one['said']}; {one['remedy']}" if one["remedy"] else one["said"])


def _print_state(state: dict[str, Any]) -> None:
    features = state["screens"].get("features", {})
    session = state["session"]
    jobs = [f"{job['job_id']} ({job['kind']}, {job['status']})" for job in state["jobs"]]
    loaded = f"{session['model']} on {session['device']}" if session["phase"] == "ready" else ""
    print_facts(
        {
            "workspace": state["workspace"],
            "screen": state["screen"].title() + (f", {state['popup']}" if state["popup"] else ""),
            "SAE": state["sae"] or "(none)",
            "feature": "(none)" if state["feature"] is None else str(state["feature"]),
            "filter": features.get("search") or "(none)",
            "model": loaded or session["phase"],
            "jobs": "  ".join(jobs) or "(none running)",
            "errors": f"{count(state['unread_errors'])} unread",
            "terminal": f"{state['columns']} x {state['rows']}, theme {state['theme']}",
            "process": f"{state['pid']}, mi-crow {state['version']}",
        }
    )
