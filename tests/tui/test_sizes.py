"""Terminals of every size: one pane at 40x10, a sentence below that, little empty at 200x60."""

import pytest
from textual.widgets import Input

from mi_crow.jobs.events import append_event
from mi_crow.store.workspace import Workspace
from tests.tui.driving import press, screen_text, select, settle
from tests.tui.stand_ins import NAMES, SAE, give_index
from tests.tui.test_control_screen import FakeSession
from tests.tui.test_features_snapshots import TEXT
from tests.tui.test_runs_detail import add_trained
from tui import messages
from tui.app import MiCrowApp
from tui.messages import SessionState
from tui.widgets.area import Area
from tui.widgets.stream_text import StreamText

LEAST, LARGE, HUGE = (40, 10), (200, 60), (300, 100)
BLOCK = (10, 4)  # columns and lines: about a square
BLOCKS_OF_A_MODEL = 6


class SixBlocks(FakeSession):
    """Answers with the modules of a model of six blocks, as the sample model has."""

    def call(self, op: str, **params):
        answer = super().call(op, **params)
        if op != "layers":
            return answer
        inside = ("self_attn", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        inside += ("self_attn.o_proj", "mlp", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
        names = ["model", "model.embed_tokens"]
        for block in range(BLOCKS_OF_A_MODEL):
            names.append(f"model.layers.{block}")
            names += [f"model.layers.{block}.{name}" for name in inside]
        rows = [{"name": name, "kind": "Linear", "shape": [128], "params": 16} for name in names]
        return {"layers": [*rows, {"name": "lm_head", "kind": "Linear"}]}


async def arrive(pilot, screen: str, workspace: Workspace) -> None:
    """Goes to a screen that shows what there is to show."""
    app = pilot.app
    assert isinstance(app, MiCrowApp)
    for feature, name in NAMES.items():
        app.context.annotations.set_concept(SAE, feature, name)
    give_index(app)
    await settle(pilot)
    if screen == "inspect":
        await app.go("inspect", messages.SendToInspect(120, TEXT))
    elif screen == "steer":
        await app.go("steer", messages.SendToSteer(120, None, (101, 3)))
        app.screen.query_one("#steer-prompt", Area).text = "The harbour"
        await press(pilot, "ctrl+r")
    elif screen == "control":
        await app.go("control")
        app.context._session = SixBlocks()  # type: ignore[assignment]
        app.context.session_state = SessionState()
        await press(pilot, "l", "ctrl+r")
    else:
        await app.go(screen)
        await settle(pilot)
        if screen == "concepts":
            await press(pilot, "G")
    await settle(pilot)
    app.clear_notifications()
    await settle(pilot)


def empty_share(pilot) -> float:
    """The share of the screen, in blocks of about a square, on which nothing is drawn: no
    character, and no other ground than the screen's, as fields have."""
    width, height = pilot.app.size
    strips = pilot.app.screen._compositor.render_strips()
    ground = pilot.app.screen.background_colors[1].rich_color.triplet
    used = [[False] * width for _ in range(height)]
    for y, strip in enumerate(strips):
        x = 0
        for segment in strip:
            style = segment.style
            colour = style.bgcolor if style is not None else None
            other = colour is not None and colour.triplet != ground
            for character in segment.text:
                if x < width:
                    used[y][x] = other or not character.isspace()
                x += 1
    columns, lines = BLOCK
    blocks = [
        any(any(row[x : x + columns]) for row in used[y : y + lines])
        for y in range(0, height, lines)
        for x in range(0, width, columns)
    ]
    return 1 - sum(blocks) / len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("screen", ["runs", "features", "inspect", "steer", "concepts", "control"])
async def test_at_most_a_third_of_a_large_screen_is_empty(app_workspace, run_app, screen):
    async with run_app(app_workspace, size=LARGE, sae_id=SAE) as pilot:
        await arrive(pilot, screen, app_workspace)
        assert empty_share(pilot) <= 1 / 3


@pytest.mark.slow
async def test_whole_texts_have_the_lines_they_need_and_the_card_the_others(app_workspace, run_app):
    async with run_app(app_workspace, size=LARGE, sae_id=SAE) as pilot:
        await arrive(pilot, "steer", app_workspace)
        top, texts, card = (
            pilot.app.screen.query_one(name).outer_size.height
            for name in ("#steer-top", "#steer-texts", "#feature-card")
        )
        assert top + texts + card == 58
        for text in pilot.app.screen.query(StreamText):
            assert text.row_count <= text.size.height <= text.row_count + 4
        assert card > 2 * (texts + top)


@pytest.mark.slow
async def test_the_lines_of_a_text_are_there_before_it_is(app_workspace, run_app):
    def lines(pilot) -> tuple[int, int]:
        found = [pilot.app.screen.query_one(name) for name in ("#steer-texts", "#feature-card")]
        return found[0].outer_size.height, found[1].outer_size.height

    async with run_app(app_workspace, size=LARGE, sae_id=SAE) as pilot:
        await arrive(pilot, "steer", app_workspace)
        screen = pilot.app.screen
        screen.query_one("#steer-tokens", Input).value = "600"
        screen._fit_lines = lambda: None
        await press(pilot, "ctrl+r")
        assert lines(pilot) == (35, 16)  # the card still says what it is of


@pytest.fixture
def like_the_demo(app_workspace, fake_jobs) -> dict[str, tuple[str, str]]:
    """The list and the key of everything that Runs shows, with as much in it as in the demo."""
    result = {"sae_id": SAE, "steps": 600, "tokens": 153_600, "fvu": 0.13, "l0": 16.0}
    add_trained(app_workspace, SAE)
    training = {"steps": 600, "batch_size": 256, "decay_share": 0.2, "precision": "auto"}
    training |= {"outlier_factor": 10.0, "checkpoint_every": 500, "log_every": 10, "seed": 1}
    params = {"run_id": "demo", "layer": "resid_post.2", "arch": "topk", "k": 16}
    params |= {"expansion": 16.0, "training": training, "shares": "tokens", "device": "auto"}
    found = {"run": ("runs", "demo"), "sae": ("saes", SAE)}
    for status in ("running", "failed", "finished"):
        made = {"name": SAE, "params": params, "log": "train starts\nreading 80,331 tokens\n"}
        job = fake_jobs.add("running", "train", done=0, total=600, **made)
        for step in range(10, 400, 10):
            fvu, memory = 0.1 + 10 / (step + 10), 1e9 + 1e6 * step
            readings = {"fvu": fvu, "loss": fvu, "l0": 16.0, "dead_share": 0.01, "memory": memory}
            fake_jobs.progress(job, step, 600, "step", readings | {"tokens_s": 20_000.0 + step})
        if status == "finished":
            fake_jobs.finish(job, result)
        elif status == "failed":
            append_event(app_workspace.job_dir(job), "failed", error="no memory", hint="less of it")
            fake_jobs.release(job)
        found[status] = "jobs", job
    return found


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "sae", "running", "failed", "finished"])
async def test_at_most_a_third_is_empty_whatever_runs_shows(
    app_workspace, like_the_demo, run_app, what
):
    async with run_app(app_workspace, size=LARGE, sae_id=SAE) as pilot:
        give_index(pilot.app)
        await press(pilot, "1")
        await select(pilot, *like_the_demo[what])
        assert empty_share(pilot) <= 1 / 3


@pytest.mark.parametrize("screen", ["runs", "features", "inspect", "steer", "concepts", "control"])
async def test_the_smallest_terminal_shows_the_pane_with_the_focus(app_workspace, run_app, screen):
    async with run_app(app_workspace, size=LEAST, sae_id=SAE) as pilot:
        await arrive(pilot, screen, app_workspace)
        seen = set()
        for _ in range(8):
            focused = pilot.app.focused
            assert focused is not None
            assert focused.region.width >= 4
            assert focused.region.height >= 1
            assert focused.region.right <= LEAST[0]
            seen.add(focused.id)
            await press(pilot, "tab")
        assert len(seen) > (screen in ("runs", "inspect", "steer", "control"))
        current = screen_text(pilot).splitlines()[1]
        assert screen.title() in current
        assert "6" in current


async def test_a_terminal_that_is_too_small_says_so_and_takes_no_keys(app_workspace, run_app):
    async with run_app(app_workspace, size=(39, 24)) as pilot:
        pilot.app.notify("told while nothing fits")
        await settle(pilot)
        assert "told" not in screen_text(pilot)
        assert "too small: it needs 40 by 10" in " ".join(screen_text(pilot).split())
        before = pilot.app.focused
        await press(pilot, "n", "6", "colon")
        assert pilot.app.current_mode == "runs"
        assert len(pilot.app.screen_stack) == 1
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "Activation runs" in screen_text(pilot)
        assert pilot.app.focused is before
        await press(pilot, "n")
        await pilot.resize_terminal(80, 9)
        await settle(pilot)
        assert "too small" in screen_text(pilot)
        assert "New" not in screen_text(pilot)
        await pilot.press("q")
        await settle(pilot)
    assert pilot.app.return_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("screen", ["runs", "features", "inspect", "steer", "concepts", "control"])
async def test_every_screen_draws_on_a_huge_terminal(app_workspace, run_app, screen):
    async with run_app(app_workspace, size=HUGE, sae_id=SAE) as pilot:
        await arrive(pilot, screen, app_workspace)
        assert len(screen_text(pilot).splitlines()) == HUGE[1]


async def test_the_keys_can_be_read_in_the_smallest_terminal(open_on):
    async with open_on("2", "question_mark", size=(40, 10)) as pilot:
        await press(pilot, "j", "j", "j", "j")
        assert "s  Send the feature to Steer" in screen_text(pilot)


async def test_what_can_be_started_is_named_whole_in_the_smallest_terminal(
    empty_workspace, run_app
):
    async with run_app(empty_workspace, size=LEAST) as pilot:
        await press(pilot, "n")
        assert "t   Train      needs a run" in screen_text(pilot)


@pytest.mark.parametrize("opened", [("2", "m"), ("question_mark",), ("2", "slash", "x")])
async def test_a_picture_of_what_is_open_over_the_screen_is_saved(
    open_on, tmp_path, opened: tuple[str, ...]
):
    path = tmp_path / "one.txt"
    async with open_on(*opened) as pilot:
        shown = screen_text(pilot)
        await press(pilot, "f8", "f8")
        pilot.app.screen.focused.value = str(path)
        await press(pilot, "enter")
        assert [line.rstrip() for line in shown.splitlines()] == path.read_text().splitlines()


@pytest.mark.slow
async def test_a_picture_of_the_screen_is_saved(app_workspace, run_app, tmp_path):
    svg, text = tmp_path / "one.svg", tmp_path / "two.txt"
    async with run_app(app_workspace) as pilot:
        for path in (svg, text):
            await press(pilot, "colon", *"save a pict", "enter")
            pilot.app.screen.focused.value = str(tmp_path / "none" / "x.svg")
            await press(pilot, "enter")
            assert "does not exist" in screen_text(pilot)
            pilot.app.screen.focused.value = str(tmp_path / "x.png")
            await press(pilot, "enter")
            assert "ends in .svg or .txt" in screen_text(pilot)
            pilot.app.screen.focused.value = str(path)
            await press(pilot, "enter")
            assert len(pilot.app.screen_stack) == 1
            told = pilot.app.message_log.read()[0].sentence
            assert told == f"Saved the picture to {path}"
            pilot.app.clear_notifications()
        await press(pilot, "colon", *"save a pict", "enter")
        pilot.app.screen.focused.value = str(text)
        await press(pilot, "enter")
        assert "already exists" in screen_text(pilot)
    assert svg.read_text().startswith("<svg")
    words = text.read_text()
    assert "Activation runs" in words
    assert "Save a picture" not in words
