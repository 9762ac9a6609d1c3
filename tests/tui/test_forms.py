"""Forms: what an empty field stands for, candidates, sections, what is wrong, submitting."""

import pytest
from textual.app import App
from textual.screen import Screen

from mi_crow.bounds import EXPANSION, SIZE
from tests.tui.driving import press, screen_text, settle
from tests.tui.test_widgets import Bare
from tui.widgets.forms.fields import (
    Advice,
    Candidate,
    Default,
    FormField,
    Texts,
    WrongValueError,
    wrong_values,
)
from tui.widgets.forms.line import FieldLine, FormInput, SectionHeading
from tui.widgets.forms.popup import FormPopup

FIELDS = (
    FormField("run", "run", hint="what to train on", choices=("demo", "smol"), required=True),
    FormField("layer", "layer", default=Default("resid_post.0", "the first"), several=True),
    FormField("batch", "batch", bounds=SIZE, default=Default("32", "the usual"), section="More"),
    FormField("pack", "pack", switch=True, default=Default("no"), section="More"),
)


def study(texts: Texts) -> Advice:
    """Layers that depend on the run; nothing is possible without one."""
    if wrong := wrong_values(FIELDS, texts):
        return Advice(troubles=wrong)
    layers = [Candidate(f"resid_post.{n}", f"{texts['run']}: 64 wide") for n in range(3)]
    return Advice(
        {"layer": Default("resid_post.2", f"the last of {texts['run']}")},
        {"layer": tuple(layers)},
        lines=("about 3 min", "20 MB on the disk"),
        command="mi-crow train --run demo",
    )


@pytest.fixture
def results() -> list:
    return []


@pytest.fixture
async def pilot(results):
    app = Bare()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(FormPopup("Train", FIELDS, dict, study=study), results.append)
        await settle(pilot)
        yield pilot


async def test_a_field_that_has_to_be_filled_in_says_so_before_anything_is_typed():
    app = Bare()
    fields = (FormField("sae", "SAE", required=True), FormField("seed", "seed"))
    async with app.run_test(size=(40, 10)) as pilot:
        app.push_screen(FormPopup("Evaluate", fields, dict, study=lambda _: Advice()))
        await settle(pilot)
        first, second = app.screen.query(FormInput)
        assert (first.placeholder, second.placeholder) == ("required", "")
        assert "required" in screen_text(pilot)
        first.show_default(Default("demo-topk", "the newest"))
        assert first.placeholder.startswith("demo-topk  ·  the")


async def test_the_smallest_terminal_shows_whole_hints_and_what_to_expect_at_the_button():
    app = Bare()
    hint = "the activations to train on, of one run that is complete"
    fields = [FormField(f"f{n}", f"field {n}", hint=hint) for n in range(9)]
    expected = Advice(lines=("about 3 min", "20 MB on the disk"))
    async with app.run_test(size=(40, 10)) as pilot:
        app.push_screen(FormPopup("Train", fields, dict, study=lambda _: expected))
        await settle(pilot)
        text = " ".join(screen_text(pilot).replace("│", "").split())
        assert hint in text
        assert "Start" in text
        assert "about 3 min" not in text  # there is no room for both
        await press(pilot, *["shift+tab"])
        text = " ".join(screen_text(pilot).replace("│", "").split())
        assert "about 3 min · 20 MB on the disk" in text
        assert "Start" in text


async def test_a_form_says_what_is_missing_and_then_what_to_expect(pilot):
    text = screen_text(pilot)
    assert "no run given" not in text  # nobody has come to it yet
    assert "mi-crow train" not in text
    assert "Copy command" not in text
    field = pilot.app.screen.query(FormInput).first()
    assert field.placeholder == "required  ·  what to train on"
    await press(pilot, "d", "escape", "backspace")
    assert "no run given" in screen_text(pilot)
    await press(pilot, *"demo")
    text = screen_text(pilot)
    assert "no run given" not in text
    assert "Copy command" in text
    assert "about 3 min · 20 MB on the disk" in text
    assert "mi-crow train --run demo" in text


@pytest.mark.slow
async def test_an_empty_field_stands_for_what_it_shows(pilot, results):
    assert "resid_post.0  ·  the first" in screen_text(pilot)
    await press(pilot, *"smol")
    assert "resid_post.2  ·  the last of smol" in screen_text(pilot)
    await press(pilot, "ctrl+r")
    assert results == [{"run": "smol", "layer": ("resid_post.2",), "batch": 32, "pack": False}]


@pytest.mark.slow
async def test_what_was_typed_last_counts_even_if_the_form_has_not_looked_yet(pilot, results):
    for key in (*"smol", "ctrl+r"):
        await pilot.press(key)
    await settle(pilot)
    assert results[0]["layer"] == ("resid_post.2",)


async def test_down_lists_the_candidates_and_enter_takes_one(pilot):
    await press(pilot, "down")
    assert "smol" in screen_text(pilot)
    await press(pilot, "down", "enter", "enter")
    run, layer = list(pilot.app.screen.query(FormInput))[:2]
    assert run.value == "smol"
    assert layer.has_focus
    await press(pilot, *"post.1")
    assert "smol: 64 wide" in screen_text(pilot)
    await press(pilot, "tab", "comma", *"post.0", "enter")
    assert layer.value == "resid_post.1,resid_post.0"
    assert layer.has_focus
    await press(pilot, "tab")
    assert not layer.has_focus


@pytest.mark.slow
async def test_up_and_down_go_from_line_to_line_and_end_at_the_ends(pilot, results):
    first = pilot.app.screen.query(FormInput).first()
    await press(pilot, *"demo", "up")
    assert first.has_focus
    await press(pilot, "tab", "tab", "down", "down", "down", "down")
    assert pilot.app.screen.focused.id == "submit"
    await press(pilot, "up", "up")
    assert isinstance(pilot.app.screen.focused, SectionHeading)
    assert results == []


async def test_escape_closes_the_list_then_leaves_the_field_then_closes_the_form(pilot):
    await press(pilot, "d", "escape")
    field = pilot.app.screen.query(FormInput).first()
    assert "smol" not in screen_text(pilot)
    assert field.has_focus
    await press(pilot, "escape")
    assert not field.has_focus
    assert isinstance(pilot.app.screen, FormPopup)
    await press(pilot, "escape")
    assert not isinstance(pilot.app.screen, FormPopup)


@pytest.mark.slow
async def test_a_text_that_may_become_a_choice_is_not_wrong_yet(results):
    fields = (FormField("arch", "architecture", choices=("topk", "gated"), closed=True),)

    def look(texts: Texts) -> Advice:
        return Advice(troubles=wrong_values(fields, texts))

    app = Bare()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(FormPopup("Train", fields, dict, study=look), results.append)
        await settle(pilot)
        await press(pilot, *"ga")
        assert "must be" not in screen_text(pilot)
        await press(pilot, *"z")
        assert "architecture must be topk or gated, not 'gaz'" in screen_text(pilot)
        await press(pilot, "ctrl+r")
        assert results == []


async def test_escape_keeps_what_was_typed_and_never_asks(results):
    app = Bare()
    async with app.run_test(size=(80, 24)) as pilot:

        async def open_form() -> list[str]:
            app.push_screen(FormPopup("Train", FIELDS, dict, study=study), results.append)
            await settle(pilot)
            return texts_of(app)

        assert await open_form() == [""] * 4
        await press(pilot, *"demo", "escape", "escape")
        assert results == [None]
        assert await open_form() == ["demo", "", "", ""]
        assert "As it was left; ctrl+n begins anew" in screen_text(pilot)
        await press(pilot, "escape")  # nothing was typed since
        assert results == [None, None]
        await open_form()
        await press(pilot, "ctrl+n")
        assert "As it was left" not in screen_text(pilot)
        assert texts_of(app) == [""] * 4
        await press(pilot, "escape")
        assert await open_form() == [""] * 4
        await press(pilot, *"smol", "escape", "escape")
        await open_form()
        await press(pilot, "ctrl+r")
        assert results[-1]["run"] == "smol"
        assert await open_form() == [""] * 4  # it has started what was typed


async def test_a_section_opens_and_says_what_was_changed_in_it(pilot):
    assert "2 more" in screen_text(pilot)
    assert "the usual" not in screen_text(pilot)
    heading = pilot.app.screen.query_one(SectionHeading)
    heading.focus()
    await press(pilot, "enter", "down", *"64")
    assert "batch 64" in screen_text(pilot)
    heading.focus()
    await press(pilot, "enter")
    text = screen_text(pilot)
    assert "pack" not in text
    assert "batch 64" in text


def lines_of(form: Screen) -> dict[str, FieldLine]:
    return {line.field.name: line for line in form.query(FieldLine)}


def texts_of(app: App) -> list[str]:
    return [line.text for line in lines_of(app.screen).values()]


def focused_field(app: App) -> str:
    assert isinstance(app.focused, FormInput)
    return app.focused.field.name


async def test_the_fields_of_a_closed_section_are_made_when_it_opens(pilot):
    form = pilot.app.screen
    lines_of(form)["batch"].text = "64"
    assert [one.field.name for one in form.query(FormInput)] == ["run", "layer"]
    assert form.texts == {"run": "", "layer": "", "batch": "64", "pack": ""}
    form.query_one(SectionHeading).focus()
    await press(pilot, "enter")
    made = {one.field.name: one.value for one in form.query(FormInput)}
    assert made == form.texts
    await press(pilot, "down", "end", "0", "enter")
    assert form.texts["batch"] == "640"


async def test_every_wrong_field_says_what_is_wrong_and_the_first_gets_the_focus(pilot, results):
    inputs = lines_of(pilot.app.screen)
    heading = pilot.app.screen.query_one(SectionHeading)
    heading.focus()
    await press(pilot, "enter", "down", "0", "down", *"maybe")
    lines = screen_text(pilot).splitlines()
    at = {name: next(n for n, line in enumerate(lines) if f"│ {name} " in line) for name in inputs}
    assert "no run given" not in lines[at["run"] + 1]
    assert "batch must be at least 1, not 0" in lines[at["batch"] + 1]
    assert "pack must be yes or no, not 'maybe'" in lines[at["pack"] + 1]
    assert "to put right: batch, pack" in screen_text(pilot)
    await press(pilot, "ctrl+r")
    lines = screen_text(pilot).splitlines()
    at = {name: next(n for n, line in enumerate(lines) if f"│ {name} " in line) for name in inputs}
    assert "no run given" in lines[at["run"] + 1]
    assert "to put right: run, batch, pack" in screen_text(pilot)
    assert results == []
    assert focused_field(pilot.app) == "run"
    await press(pilot, *"demo")
    assert "no run given" not in screen_text(pilot)
    heading.focus()
    await press(pilot, "enter")
    assert "More   2 wrong" in screen_text(pilot)
    await press(pilot, "ctrl+r")
    assert focused_field(pilot.app) == "batch"


async def test_a_form_without_a_study_says_all_that_is_wrong_when_it_starts(results):
    app = Bare()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(FormPopup("Train", FIELDS, dict), results.append)
        await settle(pilot)
        lines_of(app.screen)["batch"].text = "x"
        await settle(pilot)
        assert "no run given" not in screen_text(pilot)
        await press(pilot, "ctrl+r")
        text = screen_text(pilot)
        assert "no run given" in text
        assert "to put right: run, batch" in text
        assert focused_field(app) == "run"
        await press(pilot, *"demo")
        assert "no run given" not in screen_text(pilot)
        assert results == []


@pytest.mark.slow
async def test_a_wrong_value_in_a_closed_section_is_shown_on_submit(pilot, results):
    await press(pilot, *"demo")
    lines_of(pilot.app.screen)["batch"].text = "0"
    await press(pilot, "backspace", "o")  # it looks again
    assert "batch must be at least 1, not 0" in screen_text(pilot)
    await press(pilot, "ctrl+r")
    assert results == []
    assert focused_field(pilot.app) == "batch"


@pytest.mark.slow
async def test_y_copies_the_command_where_it_is_not_typing(pilot, monkeypatch):
    copied = []
    monkeypatch.setattr("tui.widgets.forms.popup.copy", lambda app, text, what: copied.append(text))
    await press(pilot, "y")
    assert copied == []
    await press(pilot, "backspace", *"demo", "escape", "y")
    assert copied == ["mi-crow train --run demo"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("2,000", 2000), ("2_000", 2000), ("2k", 2000), ("1.5M", 1_500_000), ("1e3", 1000)],
)
def test_numbers_are_read_as_people_write_them(text, value):
    assert FormField("n", "steps", bounds=SIZE).value_of(text) == value


@pytest.mark.parametrize(
    ("field", "text", "sentence"),
    [
        (FormField("n", "steps", bounds=SIZE), "1.5", "steps must be a whole number, not '1.5'"),
        (FormField("n", "width", bounds=EXPANSION), "0,5", "width must be a number, not '0,5'"),
        (FormField("n", "steps", bounds=SIZE), "1,5", "steps must be a whole number, not '1,5'"),
        (FormField("n", "steps", bounds=SIZE), "1e999", "steps must be a whole number"),
        (FormField("n", "steps", bounds=SIZE), "0", "steps must be at least 1, not 0"),
        (FormField("n", "width", bounds=EXPANSION), "nan", "width must be"),
        (FormField("n", "pack", switch=True), "maybe", "pack must be yes or no, not 'maybe'"),
        (
            FormField("n", "stored as", choices=("a", "b", "c"), closed=True),
            "d",
            "stored as must be a, b or c, not 'd'",
        ),
    ],
)
def test_a_wrong_value_is_named_by_its_field(field, text, sentence):
    with pytest.raises(WrongValueError) as caught:
        field.value_of(text)
    assert caught.value.sentence.startswith(sentence)
    assert caught.value.name == "n"
