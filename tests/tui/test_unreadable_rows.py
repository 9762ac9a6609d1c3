"""A run, an SAE or a job that cannot be read is one row that says why; the others are there."""

from tests.tui.driving import press, screen_text, settle


async def test_what_cannot_be_read_is_a_row_that_says_why(run_app, app_workspace):
    for place, marker in (("activations", "manifest"), ("saes", "cfg"), ("jobs", "spec")):
        folder = app_workspace.root / place / "torn"
        folder.mkdir(parents=True)
        (folder / f"{marker}.json").write_text('{"a": ')
    async with run_app(app_workspace, size=(140, 50)) as pilot:
        await settle(pilot)
        assert screen_text(pilot).count("unreadable") >= 3
        assert "demo-topk" in screen_text(pilot)
        assert screen_text(pilot).count("torn") == 3  # a job too has its name
        await press(pilot, "g", "G")
        assert "JSON" in screen_text(pilot)  # of a sentence that wraps where its path ends
