"""The layer of a feature: read from the index, asked for, sorted by, written to files."""

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from mi_crow.cli.entry import run_command_line
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.features.layers.condition import block_of, layer_words, layers_named
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import QueryError, completions, parse_query
from mi_crow.mechanistic.features.records import LayerNorm
from mi_crow.mechanistic.features.report.write import write_features
from mi_crow.store.workspace import Workspace
from tests.helpers.layered_index import (
    FEATURES,
    FIRSTS,
    LAYERS,
    PLAIN,
    WRITTEN,
    make_layered_index,
)

CLT, SHARED, OLD_CLT, OLD_SHARED = "clt", "shared", "old-clt", "old-shared"
TWO_MODELS = ("base:resid_post.1", "base:resid_post.3", "tuned:resid_post.1", "tuned:resid_post.3")


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.open(tmp_path_factory.mktemp("layered") / "ws")
    make_layered_index(workspace, CLT)
    make_layered_index(workspace, SHARED, shared=True)
    make_layered_index(workspace, OLD_CLT, schema=3)
    make_layered_index(workspace, OLD_SHARED, shared=True, schema=3)
    return workspace


@pytest.fixture
def store_of(layered: Workspace) -> Callable[[str], FeatureStore]:
    return lambda sae_id: FeatureStore.open(layered, sae_id)


def found(store: FeatureStore, query: str) -> list[int]:
    return store.find(parse_query(query)).tolist()


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("layer:2", range(20, 50)),
        ("layer:0,3", [*range(20), *range(50, 64)]),
        ("layer:1-9", range(20, 64)),
        ("layer:mlp_in.3", range(50, 64)),
        ("layer:blocks.3.mlp.hook_in", range(50, 64)),
        ("layer=2", range(20, 50)),
        ("layer>2", range(50, 64)),
        ("layer<=2", range(50)),
        ("-layer:2", [*range(20), *range(50, 64)]),
    ],
)
@pytest.mark.parametrize("sae_id", [CLT, OLD_CLT])
def test_features_of_a_layer_are_found(
    store_of: Callable[[str], FeatureStore], sae_id: str, query: str, wanted: list[int]
) -> None:
    assert sorted(found(store_of(sae_id), query)) == list(wanted)


def test_a_layer_that_is_not_there_is_told_with_those_that_are(
    store_of: Callable[[str], FeatureStore],
) -> None:
    with pytest.raises(QueryError, match="'1' is none of the layers") as error:
        found(store_of(CLT), "rain layer:1")
    assert all(name in error.value.hint for name in LAYERS)
    assert error.value.start == len("rain ")
    with pytest.raises(QueryError, match="'7-9' is none"):
        found(store_of(CLT), "layer:2,7-9")
    with pytest.raises(QueryError, match="needs a value"):
        parse_query("layer:")
    with pytest.raises(QueryError, match="is not a number"):
        parse_query("layer>mlp_in")


def test_layers_order_features(store_of: Callable[[str], FeatureStore]) -> None:
    for sae_id in (CLT, SHARED):
        store = store_of(sae_id)
        assert found(store, "sort:layer") == list(range(FEATURES))
        down = [*range(50, 64), *range(20, 50), *range(20)]
        assert found(store, "-sort:layer") == store.ids("layer", True).tolist() == down


def test_the_layers_of_two_models_are_told_apart() -> None:
    def meant(wanted: str) -> list[int]:
        return layers_named(wanted, TWO_MODELS).nonzero()[0].tolist()

    assert meant("3") == [1, 3]
    assert meant("tuned") == [2, 3]
    assert meant("tuned:resid_post.1") == [2]
    assert meant("resid_post.1,base") == [0, 1, 2]
    assert [block_of(name) for name in TWO_MODELS] == [1, 3, 1, 3]
    assert layer_words(TWO_MODELS) == ["1", "3", *TWO_MODELS]


def test_an_sae_of_one_layer_has_it_everywhere(store_of: Callable[[str], FeatureStore]) -> None:
    store = store_of(PLAIN)
    [layer] = store.connection.layers.names
    rows = store.rows([0, 63], ["layer"])
    assert [row.more["layer"] for row in rows] == [layer, layer]
    assert len(found(store, f"layer:{block_of(layer)}")) == FEATURES
    detail = store.detail(0)
    assert (detail.layer, detail.several, detail.written) == (layer, False, ())


def test_the_detail_says_what_a_feature_writes_to(
    store_of: Callable[[str], FeatureStore],
) -> None:
    detail = store_of(CLT).detail(FIRSTS[1])
    assert (detail.layer, detail.several) == (LAYERS[1], True)
    assert detail.written == (LayerNorm(WRITTEN[1], 2.0, 1.0), LayerNorm(WRITTEN[2], 0.5, 0.25))
    shared = store_of(SHARED).detail(FIRSTS[2])
    assert shared.layer == "resid_post.3"
    assert [one.relative for one in shared.written] == [0.25, 0.25, 1.0]


def test_an_index_of_before_says_what_it_lacks(store_of: Callable[[str], FeatureStore]) -> None:
    old = store_of(OLD_CLT).detail(FIRSTS[1])
    assert (old.layer, old.several, old.written) == (LAYERS[1], True, ())
    store = store_of(OLD_SHARED)
    detail = store.detail(3)
    assert (detail.layer, detail.several) == ("", True)
    assert "mi-crow index --sae old-shared" in detail.why_no_layer
    assert store.rows([3], ["layer"])[0].more == {"layer": ""}
    assert found(store, "sort:layer") == list(range(FEATURES))
    with pytest.raises(UserError, match="does not say which layer") as error:
        found(store, "layer:2")
    assert "mi-crow index --sae old-shared" in error.value.hint


def test_a_damaged_table_of_layers_is_told(layered: Workspace) -> None:
    make_layered_index(layered, "damaged")
    with duckdb.connect(str(layered.index_path("damaged"))) as connection:
        connection.execute("DELETE FROM feature_layers WHERE feature = 7")
    store = FeatureStore.open(layered, "damaged")
    with pytest.raises(CorruptDataError, match="layers of some features are missing"):
        found(store, "layer:2")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE meta SET value = '[\"a\"]' WHERE key = 'layers_written'",
        "DELETE FROM meta WHERE key = 'layers_written'",
        "UPDATE feature_layers SET norms = NULL",
        "DELETE FROM feature_layers",
        "UPDATE feature_layers SET layer = 9",
    ],
)
def test_a_feature_whose_layers_are_damaged_is_told(layered: Workspace, damage: str) -> None:
    make_layered_index(layered, "worse")
    with duckdb.connect(str(layered.index_path("worse"))) as connection:
        connection.execute(damage)
    with pytest.raises(CorruptDataError, match="'worse' is damaged"):
        FeatureStore.open(layered, "worse").detail(20)


def test_completion_knows_the_layers() -> None:
    known = {"layer": layer_words(LAYERS)}
    assert "layer:" in completions("lay", {})
    assert completions("layer:", known) == [
        "layer:0",
        "layer:2",
        "layer:3",
        *(f"layer:{name}" for name in LAYERS),
    ]
    assert completions("-layer:mlp_in.", known)[0] == "-layer:mlp_in.0"
    assert "sort:layer" in completions("sort:la", {})


def test_the_command_line_tells_layers(
    layered: Workspace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    def said(*words: str) -> str:
        assert run_command_line(["--workspace", str(layered.root), *words]) == 0
        return capsys.readouterr().out

    assert "mlp_in.3" in said("features", "layer:3", "--sae", CLT, "--limit", "1")
    assert "layer" not in said("features", "--sae", PLAIN, "--limit", "1")
    columns = said("features", "--sae", PLAIN, "--limit", "1", "--columns", "feature,layer")
    assert "resid" in columns or "layers" in columns
    rows = json.loads(said("features", "layer:2", "--sae", CLT, "--json", "--limit", "64"))
    assert {row["layer"] for row in rows} == {"mlp_in.2"}
    assert len(rows) == 30
    text = said("feature", "20", "--sae", CLT)
    assert "mlp_out.2 1, mlp_out.3 0.25" in text
    one = json.loads(said("feature", "20", "--sae", CLT, "--json"))
    assert one["layer"] == "mlp_in.2"
    assert one["decoder_norms"][1] == {"layer": "mlp_out.3", "norm": 0.5, "relative": 0.25}
    assert "mi-crow index --sae old-shared" in said("feature", "20", "--sae", OLD_SHARED)
    assert "mlp_in.2" in said("feature", "20", "3", "--sae", CLT)
    next_one = said("concepts", "next", "--sae", CLT, "--limit", "1")
    assert "mlp_in." in next_one
    said("concepts", "set", "20", "gardens", "--sae", CLT)
    said("concepts", "set", "20", "gardens", "--sae", OLD_SHARED)
    assert "mlp_in.2" in said("concepts", "list", "--sae", CLT)
    assert json.loads(said("concepts", "list", "--sae", CLT, "--json"))[0]["layer"] == "mlp_in.2"
    assert "layer" not in said("concepts", "list", "--sae", OLD_SHARED)
    for name in ("names.csv", "names.json"):
        path = tmp_path / name
        said("concepts", "export", str(path))
        assert ("mlp_in.2" in path.read_text(), "layer" in path.read_text()) == (True, True)
        assert "not read" not in said("concepts", "import", str(path))
        path.write_text(path.read_text().replace("mlp_in.2", "mlp_in.0"))
        assert "2 unchanged; not read: “layer”" in said("concepts", "import", str(path))
        said("concepts", "export", str(path), "--sae", OLD_SHARED, "--force")
        assert "layer" not in path.read_text()
    assert "mlp_in." in said("features", "--sae", CLT, "--on-text", "harbour")
    command = ["--workspace", str(layered.root), "features", "layer:9", "--sae", CLT]
    assert run_command_line(command) == 2
    assert "'9' is none of the layers" in capsys.readouterr().err


def test_reports_name_the_layer(store_of: Callable[[str], FeatureStore], tmp_path: Path) -> None:
    for name in ("page.html", "page.json"):
        write_features(store_of(CLT), [20], tmp_path / name)
    page = (tmp_path / "page.html").read_text()
    assert "<dt>Layer</dt><dd>mlp_in.2</dd>" in page
    assert "mlp_out.2 1.00, mlp_out.3 0.250" in page
    [one] = json.loads((tmp_path / "page.json").read_text())["features"]
    assert (one["layer"], len(one["decoder_norms"])) == ("mlp_in.2", 2)
