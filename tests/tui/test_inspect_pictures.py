"""Pictures of what Inspect shows and opens, at two sizes."""

from typing import Any

import pytest

from tests.tui.driving import press, settle
from tests.tui.stand_ins import ScriptedSession, give_index
from tests.tui.test_inspect_comparing import OTHER, compared, contrasted, patched
from tests.tui.test_inspect_explaining import attributed
from tests.tui.test_inspect_screen import TEXT
from tui.app import MiCrowApp
from tui.widgets.area import Area


def layers(session: ScriptedSession) -> dict[str, Any]:
    """Two SAEs of one model on the text."""
    one = session.call("inspect", text=TEXT)
    one["features"] = [row | {"concept": None, "label": "sea"} for row in one["features"]]
    count = len(one["tokens"])
    saes = [
        {**one, "sae_id": name, "point": point, "explained": [None, *[share] * (count - 1)]}
        for name, point, share in (
            ("smol-sae", "resid_post.1", 0.71),
            ("demo-topk", "resid_post.2", 0.93),
        )
    ]
    return {**one, "saes": saes}


PICTURES = {
    "labels": ("d", "g", "l", "l"),
    "grid": ("m",),
    "layers": ("g", "l", "l", "M"),
    "tree": ("a",),
    "texts": ("equals_sign", "tab", *OTHER, "ctrl+r"),
    "sets": ("equals_sign", "tab", *"label:law", "ctrl+r", "space"),
    "patching": ("equals_sign", "tab", *OTHER, "ctrl+r", "p"),
    "saved": ("S", "ctrl+r", "K"),
    "sources": ("n",),
}
SIZES = ((80, 24), (200, 60))
FAST = ("texts", (80, 24))


@pytest.mark.parametrize(
    ("what", "size"),
    [
        pytest.param(what, size, marks=() if (what, size) == FAST else pytest.mark.slow)
        for what in PICTURES
        for size in SIZES
    ],
)
def test_inspect(snap_compare, app_workspace, monkeypatch, what: str, size: tuple[int, int]):
    monkeypatch.setattr("time.time", lambda: 1_790_000_000.0)
    monkeypatch.setattr("tui.screens.inspect.reading.monotonic", lambda: 0.0)
    app = MiCrowApp(app_workspace, "demo-topk")

    async def drive(pilot) -> None:
        await settle(pilot)
        session = give_index(app)
        await settle(pilot)
        await press(pilot, "3")
        app.screen.query_one(Area).text = TEXT
        await press(pilot, "ctrl+r")
        session.answers |= {"compare": compared(), "contrast": contrasted(), "patch": patched()}
        session.answers["attribute"] = attributed("early", "demo-topk")
        if what == "layers":
            session.answers["inspect"] = layers(session)
        await press(pilot, *PICTURES[what])

    assert snap_compare(app, terminal_size=size, run_before=drive)
