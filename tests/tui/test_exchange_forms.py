"""The forms of an import and an export: what they find by themselves, and what they refuse."""

import json
import os
import shlex
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from mi_crow.errors import NotFoundError
from mi_crow.jobs.kinds import KINDS
from mi_crow.jobs.spec import config_from_json
from mi_crow.mechanistic.sae.formats.config import ExportConfig, ImportConfig
from mi_crow.mechanistic.sae.formats.files import LocatedFiles
from mi_crow.store import free_space
from mi_crow.store.workspace import Workspace
from tests.tui.driving import press, screen_text, settle, trouble_of, where_of
from tui.app import MiCrowApp
from tui.screens.runs.forms import exporting, importing
from tui.screens.runs.forms.exporting import ExportForm
from tui.screens.runs.forms.finding import Situation
from tui.screens.runs.forms.importing import ImportForm, ImportPopup
from tui.screens.runs.forms.job_form import JobForm
from tui.screens.runs.forms.kinds import form_of_job
from tui.widgets.forms.fields import Advice, read_values
from tui.widgets.forms.line import FormInput

SAES = Path(__file__).parent.parent / "fixtures" / "sae_formats"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with one repository of two SAEs, and one of none."""
    cache, commit = tmp_path_factory.mktemp("hub"), "01" * 20
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for repository, files in (
        ("models--org--run", ("layers.1/sae.safetensors", "layers.2/sae.safetensors")),
        ("models--org--model", ("config.json", "model.safetensors")),
    ):
        for file in files:
            path = cache / repository / "snapshots" / commit / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (cache / repository / "refs").mkdir()
        (cache / repository / "refs" / "main").write_text(commit)
    return cache


def situation(workspace: Workspace) -> Situation:
    return Situation(workspace, tuple(workspace.list_runs()), tuple(workspace.list_saes()))


def texts_of(form: JobForm, **texts: str) -> dict[str, str]:
    """What stands in the form when these are typed; `_` in a name is the dot of a path."""
    typed = {name.replace("__", "."): text for name, text in texts.items()}
    return {one.name: typed.get(one.name, one.text) for one in form.fields}


def advice_of_import(workspace: Workspace, **texts: str) -> tuple[Advice, ImportForm]:
    form = ImportForm(situation(workspace))
    return form.study(texts_of(form, **texts)), form


def advice_of_export(workspace: Workspace, **texts: str) -> Advice:
    form = ExportForm(situation(workspace))
    return form.study(texts_of(form, **texts))


@pytest.mark.parametrize(
    ("fixture", "facts"),
    [
        ("saelens_topk", "SAELens: topk, 96 latents of 24 inputs"),
        ("sparsify_topk", "sparsify: topk, 96 latents of 24 inputs"),
        ("gemma_scope", "Gemma Scope"),
        ("dictionary_learning_batchtopk", "dictionary_learning"),
    ],
)
def test_an_import_finds_the_format_by_itself(app_workspace, fixture, facts):
    advice, form = advice_of_import(app_workspace, path=str(SAES / fixture))
    assert (trouble_of(advice), form.wanted) == ("", None)
    assert advice.lines[0] == facts
    assert "nothing to download" in advice.lines
    assert advice.defaults["name"].text == fixture
    assert advice.command.startswith(f"mi-crow import {SAES / fixture} --name {fixture} ")


def test_an_import_says_what_its_files_name(app_workspace):
    advice, _ = advice_of_import(app_workspace, path=str(SAES / "saelens_topk"))
    assert advice.defaults["layer"].source == "as its files say: resid_post.1"


def test_a_taken_name_gets_a_number(app_workspace, tmp_path):
    shutil.copytree(SAES / "saelens_topk", tmp_path / "demo-topk")
    advice, _ = advice_of_import(app_workspace, path=str(tmp_path / "demo-topk"))
    assert advice.defaults["name"].text == "demo-topk-2"


def test_one_of_several_has_to_be_chosen(app_workspace):
    advice, form = advice_of_import(app_workspace, path="org/run", offline="yes")
    assert trouble_of(advice) == "2 SAEs are there; choose one at hook point"
    assert [one.text for one in advice.candidates["layer"]] == ["layers.1", "layers.2"]
    assert form.wanted is None


def test_what_the_cache_of_the_hub_holds_is_offered(app_workspace):
    advice, _ = advice_of_import(app_workspace)
    first, *folders = advice.candidates["path"]
    assert (first.text, first.note) == ("org/run", "2 SAEs in the hub's cache")
    assert {one.note for one in folders} <= {"folder", "file"}


@pytest.mark.parametrize(
    ("texts", "where", "says"),
    [
        ({}, "path", "no source given"),
        ({"path": "./nothing"}, "path", "no SAE at './nothing'"),
        ({"path": "EMPTY"}, "path", "no SAE at"),
        ({"path": "OTHER"}, "path", "without the config.yaml that names their hook points"),
        ({"path": "org/nowhere", "offline": "yes"}, "path", "is not in the local cache"),
        ({"path": "SAE", "name": "demo-topk"}, "name", "exists already; choose another name"),
        ({"path": "SAE", "name": "../x"}, "name", "is not a valid name"),
        ({"path": "SAE", "model__model": "./none"}, "model.model", "model './none' not found"),
        ({"path": "SAE", "dtype": "int4"}, "dtype", "weights as must be auto"),
        ({"path": "SAE", "input_scale": "-1"}, "input_scale", "input scale must be"),
        ({"path": "GEMMA", "check": "yes"}, "model.model", "do not name the model"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(app_workspace, tmp_path, texts, where, says):
    (tmp_path / "EMPTY").mkdir()
    other = tmp_path / "OTHER" / "x" / "layer_0.safetensors"
    other.parent.mkdir(parents=True)
    other.touch()
    places = {"SAE": SAES / "saelens_topk", "GEMMA": SAES / "gemma_scope"}
    if texts.get("path", "").isupper():
        texts = texts | {"path": str(places.get(texts["path"], tmp_path / texts["path"]))}
    advice, _ = advice_of_import(app_workspace, **texts)
    assert says in trouble_of(advice)
    assert where_of(advice) == where
    assert "\n" not in trouble_of(advice)
    assert "--" not in trouble_of(advice)
    assert advice.command == ""


def test_a_full_disk_is_said_before_the_start(app_workspace, monkeypatch):
    monkeypatch.setattr(free_space.shutil, "disk_usage", lambda _: Usage(9**9, 0, 1000))
    advice, _ = advice_of_import(app_workspace, path=str(SAES / "saelens_topk"))
    assert "available" in trouble_of(advice)


def test_the_hub_is_asked_once_for_what_is_not_here(app_workspace, monkeypatch):
    asked = []

    def files_at(path, revision=None, *, offline):
        if offline:
            raise NotFoundError(f"SAE {path!r} is not in the local cache")
        asked.append((path, revision))
        if path == "org/gone":
            raise NotFoundError(f"SAE {path!r} is not on the hub", hint="check the name")
        sizes = {"layers.3/cfg.json": 500, "layers.3/sae.safetensors": 40_000_000}
        return LocatedFiles(path, tuple(sizes), repository=path, revision="0123", sizes=sizes)

    monkeypatch.setattr(importing, "files_at", files_at)
    advice, form = advice_of_import(app_workspace, path="org/new")
    assert (advice.lines, trouble_of(advice)) == (("asking the hub",), "")
    assert form.wanted == ("org/new", None)
    form.ask_hub(("org/new", None))
    advice = form.study(texts_of(form, path="org/new"))
    assert form.wanted is None
    assert "40.0 MB to download" in advice.lines
    assert advice.defaults["layer"].source == "as its files say: resid_post.3"
    assert "org/new" in advice.command
    form.ask_hub(("org/gone", None))
    advice = form.study(texts_of(form, path="org/gone"))
    assert trouble_of(advice) == "SAE 'org/gone' is not on the hub; check the name"
    assert asked == [("org/new", None), ("org/gone", None)]


def test_what_the_forms_ask_for_is_what_the_jobs_take(app_workspace, tmp_path):
    at = situation(app_workspace)
    everything = {
        "path": "org/name",
        "check": "yes",
        "model.model": "sample",
        "layer": "resid_post.1",
        "revision": "v2",
        "input_scale": "0.5",
        "centred": "yes",
        "device": "cpu",
    }
    for form, texts, kind in (
        (ImportForm(at), everything, ImportConfig),
        (ImportForm(at), {"path": "org/name"}, ImportConfig),
        (ExportForm(at), {"path": str(tmp_path / "x"), "sae_id": "demo-topk"}, ExportConfig),
    ):
        given = {one.name: texts.get(one.name, one.text) for one in form.fields}
        (spec,) = form.checked(read_values(form.fields, given))
        json.dumps(spec.params)
        config = config_from_json(KINDS[form.kind].config, spec.params, form.kind)
        assert isinstance(config, kind)
        again = type(form)(at, spec)
        assert {one.name: one.text for one in again.fields if one.text} == texts
        assert form.specs(read_values(again.fields, texts_of(again)))[0].params == (
            form.specs(read_values(form.fields, given))[0].params
        )


def test_a_failed_import_opens_with_its_values(app_workspace, fake_jobs):
    job = fake_jobs.add("failed", "import", params={"path": "org/gone", "name": "demo-topk"})
    form = form_of_job(situation(app_workspace), job)
    texts = {one.name: one.text for one in form.fields if one.text}
    assert texts == {"path": "org/gone", "name": "demo-topk-2"}


def test_an_export_proposes_a_new_folder(app_workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smol-sae-saelens").mkdir()
    advice = advice_of_export(app_workspace)
    assert advice.defaults["path"].text == str(tmp_path / "smol-sae-saelens-2")
    assert trouble_of(advice) == ""
    assert f"export smol-sae {tmp_path / 'smol-sae-saelens-2'} " in advice.command
    advice = advice_of_export(app_workspace, format="sparsify")
    assert "smol-sae-sparsify --format sparsify" in advice.command


@pytest.mark.parametrize(
    ("texts", "where", "says"),
    [
        ({"path": "THERE"}, "path", "exists already; give a new folder"),
        ({"path": "FILE/x"}, "path", "is a file, not a folder"),
        ({"sae_id": "none"}, "sae_id", "SAE 'none' not found"),
        (
            {"format": "onnx"},
            "format",
            "format must be saelens, sparsify, dictionary_learning or circuit-tracer, not 'onnx'",
        ),
    ],
)
def test_an_export_that_cannot_work_is_refused(app_workspace, tmp_path, texts, where, says):
    (tmp_path / "THERE").mkdir()
    (tmp_path / "FILE").touch()
    if "path" in texts:
        texts = {"path": str(tmp_path / texts["path"])}
    advice = advice_of_export(app_workspace, **texts)
    assert says in trouble_of(advice)
    assert where_of(advice) == where


def test_a_target_without_permission_is_refused(app_workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    advice = advice_of_export(app_workspace, path=str(tmp_path / "new"))
    assert "no permission in" in trouble_of(advice)


def test_an_export_path_is_made_whole(app_workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"sae_id": "a", "format": "saelens", "path": "out"}
    assert ExportForm(situation(app_workspace)).parameters(values)["path"] == str(tmp_path / "out")


async def test_an_import_is_started_from_its_form(app_workspace, run_app, monkeypatch):
    calls = []

    def submit(workspace, kind, params, name=None, **_):
        calls.append((kind, name, params["path"]))
        return "a-job"

    monkeypatch.setattr("mi_crow.jobs.launch.submit", submit)
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, "n", "m")
        assert isinstance(pilot.app.screen, ImportPopup)
        pilot.app.screen.query(FormInput).first().value = str(SAES / "saelens_topk")
        await settle(pilot)
        assert "96 latents of 24 inputs" in screen_text(pilot)
        await press(pilot, "ctrl+r")
        assert calls == [("import", "saelens_topk", str(SAES / "saelens_topk"))]


@pytest.mark.slow
async def test_w_exports_the_sae_under_the_cursor(app_workspace, run_app, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        "mi_crow.jobs.launch.submit", lambda *given, **_: calls.append(given[1:3]) or "a-job"
    )
    monkeypatch.chdir(tmp_path)
    async with run_app(app_workspace) as pilot:
        await press(pilot, "j", "j", "w", "ctrl+r")
        (call,) = calls
        assert call[0] == "export"
        assert call[1]["sae_id"] == "smol-sae"


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((80, 24), id="small"),
        pytest.param((200, 60), id="large", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["import", "export"])
def test_a_form(snap_compare, app_workspace, monkeypatch, tmp_path, kind, size):
    usage = Usage(9**12, 0, 52 * 10**9)
    monkeypatch.setattr(
        "tui.screens.runs.forms.expected.estimates.shutil.disk_usage", lambda _: usage
    )
    monkeypatch.chdir(SAES)
    place = str(tmp_path)
    command = shlex.join
    monkeypatch.setattr(shlex, "join", lambda words: command(words).replace(place, "/data"))
    monkeypatch.setattr(exporting, "_new_folder", lambda *_: Path("/data/demo-topk-saelens"))
    app = MiCrowApp(app_workspace, "demo-topk")

    async def drive(pilot) -> None:
        await settle(pilot)
        await press(pilot, "1", "n", "m" if kind == "import" else "x")
        if kind == "import":
            pilot.app.screen.query(FormInput).first().value = "./saelens_topk"
        await settle(pilot)

    assert snap_compare(app, terminal_size=size, run_before=drive)
