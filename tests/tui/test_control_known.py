"""Control before a model is loaded: what its files, the runs and the SAEs say of its layers."""

from dataclasses import replace

import pytest

from mi_crow.language_model.outline import Outline, outline_of
from mi_crow.store.workspace import Workspace
from tests.tui.driving import press, screen_text, settle
from tests.tui.test_control_screen import FakeSession
from tests.tui.test_sizes import empty_share
from tui.messages import SessionState
from tui.screens.control.known import KnownModel, known_layers, known_model, read_known, what_is_on
from tui.screens.control.overview import models_of, overview
from tui.screens.control.tree import LayerTree


def known_of(workspace: Workspace) -> KnownModel:
    """What is known of the model of the SAE demo-topk, its files not read yet."""
    runs, saes = workspace.scan_runs()[0], workspace.scan_saes()[0]
    sae = next(one for one in saes if one.sae_id == "demo-topk")
    found = known_model(sae, None, runs, saes)
    assert found is not None
    return found


def test_the_files_of_a_model_name_its_modules_in_their_order(app_workspace):
    model = read_known(known_of(app_workspace))
    layers = known_layers(model)
    names = [layer.name for layer in layers]
    assert names[1] == "model.embed_tokens"
    assert names.index("model.layers.1") < names.index("model.layers.3") < names.index("model.norm")
    by_name = {layer.name: layer for layer in layers}
    assert by_name["model.layers.3"].point == "resid_post.3"
    assert by_name["model.layers.3"].shape == "192"
    assert by_name["model.layers.3.mlp.up_proj"].kind == "linear"
    inside = [layer.params for layer in layers if layer.name.startswith("model.layers.3.mlp.")]
    assert by_name["model.layers.3.mlp"].params == sum(filter(None, inside)) > 0
    assert LayerTree(layers).blocks() == {f"model.layers.{block}" for block in range(4)}
    assert what_is_on(by_name["model.layers.2"], model) == "80.3k tokens · 1 SAE"
    assert what_is_on(by_name["model.layers.3"], model) == ""


def test_without_names_of_modules_there_is_the_stream_after_each_block(app_workspace):
    """As in a GGUF file; the layer of a run has its own name, and is there once."""
    model = replace(known_of(app_workspace), outline=Outline(4, 128))
    assert [(layer.name, layer.point) for layer in known_layers(model)] == [
        ("model.layers.2", "resid_post.2"),
        *((f"resid_post.{block}", f"resid_post.{block}") for block in (0, 1, 3)),
    ]


def test_names_in_files_get_the_prefix_of_the_loaded_model(app_workspace):
    files = Outline(3, 64, modules=("layers", "layers.0", "layers.2", "layers.2.mlp", "norm"))
    names = [layer.name for layer in known_layers(replace(known_of(app_workspace), outline=files))]
    assert "model.layers.2.mlp" in names
    assert names.count("model.layers.2") == 1


def test_a_model_that_is_not_here_has_the_layers_that_were_captured(app_workspace):
    model = known_of(app_workspace)
    assert [layer.name for layer in known_layers(model)] == ["model.layers.2"]
    words = "\n".join(part.plain for part in overview(model, known_layers(model), [], 100))
    assert "not on this machine" in words


def test_the_models_of_a_workspace_are_counted_the_latest_first(app_workspace):
    runs, saes = app_workspace.scan_runs()[0], app_workspace.scan_saes()[0]
    latest = "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert models_of(runs, saes) == [(latest, 1, 1), ("sample", 1, 1)]


def test_shapes_that_are_no_shapes_count_nothing():
    files = outline_of("sample")
    assert files is not None
    assert files.tensors["model.embed_tokens.weight"][1] == files.width


async def test_before_loading_control_says_what_is_known_and_what_can_be_done(
    app_workspace, run_app, monkeypatch
):
    monkeypatch.setattr("tui.context.AppContext.session", session := FakeSession())
    async with run_app(app_workspace, size=(200, 60), sae_id="demo-topk") as pilot:
        await press(pilot, "6")
        text = screen_text(pilot)
        assert "The model, not loaded yet" in text
        assert "l loads sample" in text
        assert "SAEs on this layer" in text
        assert "HuggingFaceTB/SmolLM2-135M-Instruct" in text
        assert empty_share(pilot) <= 1 / 3
        assert session.calls == []
        await press(pilot, "l")
        pilot.app.clear_notifications()
        await settle(pilot)
        text = screen_text(pilot)
        assert "not loaded yet" not in text
        assert "SAEs on this layer" in text


@pytest.mark.slow
async def test_the_sae_that_is_opened_has_its_model_shown(app_workspace, run_app):
    async with run_app(app_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        await press(pilot, "6")
        assert "resid_post.3" in screen_text(pilot)
        pilot.app.open_sae("smol-sae")
        await settle(pilot)
        text = screen_text(pilot)
        assert "SmolLM2-135M-Instruct" in text
        assert "resid_post.3" not in text


@pytest.mark.slow
async def test_a_large_screen_keeps_what_is_known_of_a_loaded_model(app_workspace, run_app):
    async with run_app(app_workspace, size=(200, 60), sae_id="demo-topk") as pilot:
        await pilot.app.go("control")
        pilot.app.context._session = FakeSession()
        pilot.app.context.session_state = SessionState()
        await press(pilot, "l")
        assert "not loaded" not in screen_text(pilot)
        assert "What was made of its layers" in screen_text(pilot)
        await pilot.resize_terminal(100, 40)
        await press(pilot, "j")
        assert "What was made of its layers" not in screen_text(pilot)


async def test_a_large_screen_shows_what_was_captured(app_workspace, run_app):
    async with run_app(app_workspace, size=(300, 100), sae_id="demo-topk") as pilot:
        await press(pilot, "6")
        text = screen_text(pilot)
        assert "Documents by label" in text
        assert "Some of the texts of demo" in text
        assert empty_share(pilot) < 0.4  # 0.29 with the data of the demo, which has longer texts
    async with run_app(app_workspace, size=(200, 60), sae_id="demo-topk") as pilot:
        await press(pilot, "6")
        assert "Some of the texts" not in screen_text(pilot)
