"""Pictures of a zoomed pane, of the jump labels and of a list in another order."""

import pytest

from tests.tui.driving import press, settle
from tui.app import MiCrowApp

STATES = {
    "zoomed": ("j", "j", "plus"),
    "labels": ("4", "apostrophe"),
    "ordered": ("o", "O"),
}
SIZES = [
    pytest.param((80, 24), id="small"),
    pytest.param((200, 60), id="large", marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", STATES)
def test_panes(snap_compare, app_workspace, size, state):
    async def drive(pilot) -> None:
        await settle(pilot)
        await press(pilot, "1", *STATES[state])

    assert snap_compare(MiCrowApp(app_workspace, "demo-topk"), terminal_size=size, run_before=drive)
