"""The table of published SAEs: what a search finds, and what it says of an SAE."""

import json
from itertools import pairwise

import pytest

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.library import published
from mi_crow.mechanistic.sae.library.make_table import rows
from mi_crow.mechanistic.sae.library.published import search
from mi_crow.store.columnar.parquet import parquet_look


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """As on a machine with a network; nothing here uses it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def test_words_and_conditions_narrow_a_search():
    found = search("google/gemma-2-2b layer:12 width:65k l0<60 point:resid_post")
    assert 0 < found.total == len(found.saes)
    for sae in found.saes:
        assert (sae.model, sae.layer, sae.width) == ("google/gemma-2-2b", 12, 65_536)
        assert sae.l0 is not None
        assert sae.l0 < 60
        assert sae.source == f"{sae.repository}/layer_12/width_65k/average_l0_{sae.l0:.0f}"
        assert sae.bytes == 2 * 65_536 * 2304 * 4


def test_at_most_so_many_come_and_all_are_counted():
    every, some = search(), search("", 5)
    assert len(some.saes) == 5
    assert some.total == every.total == len(every.saes) > 13_000
    assert every.saes[:5] == some.saes
    sources = [sae.source for sae in every.saes]
    assert len(set(sources)) == len(sources)
    order = [(sae.model, bool(sae.layers), sae.release) for sae in every.saes]
    assert all(before <= after for before, after in pairwise(order))


def test_what_files_leave_out_is_in_the_table():
    (sae,) = search("gpt2 mlp-tm layer:3").saes
    assert sae.centred
    assert sae.scale == pytest.approx(1.8958522)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("layr:3", "'layr' is not a condition"),
        ("l0:many", "l0 needs a number"),
        ("model<3", "which only numbers can"),
        ("cached:perhaps", "cached is yes or no"),
        ("sort:l1", "cannot be sorted by 'l1'"),
        ("kind:clts", "'clts' is not a kind of SAE"),
        ("size<big", "size needs a number of bytes"),
    ],
)
def test_a_condition_without_sense_is_named(query, said):
    with pytest.raises(UserError, match=said):
        search(query)


def test_quotes_in_a_search_are_text():
    assert search("' OR 1=1 --").total == 0


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, empty; gives what puts a file of a repository there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def put(repository: str, *files: str) -> None:
        snapshot = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc"
        for file in files:
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / file).write_bytes(b"0")

    return put


RES = "google/gemma-scope-2b-pt-res"


def test_what_the_hubs_cache_holds_is_known(cache):
    assert search("cached:yes").total == 0
    cache(RES, "layer_12/width_16k/average_l0_82/params.npz")
    found = search("cached:yes")
    assert search("cached:yes") is found  # until there are other files
    assert [sae.path for sae in found.saes] == ["layer_12/width_16k/average_l0_82"]
    assert found.saes[0].cached
    assert search("cached:no gemma-2-2b layer:12 l0:82 width:16k point:resid_post").total == 0


def test_what_is_only_described_or_only_partly_there_is_not_here(cache):
    clt = "google/gemma-scope-2-1b-pt"
    folder = "clt/width_262k_l0_medium"
    cache("mntss/clt-gemma-2-2b-426k", "config.yaml", "W_enc_0.safetensors")
    cache(
        clt,
        f"{folder}/config.json",
        *(f"{folder}/params_layer_{at}.safetensors" for at in range(25)),
    )
    assert search("cached:yes kind:clt").total == 0
    cache(clt, f"{folder}/params_layer_25.safetensors")
    (sae,) = search("cached:yes kind:clt").saes
    assert (sae.path, sae.cached) == (folder, True)


def test_what_is_cached_and_in_no_list_is_listed_by_its_name(cache):
    cache("someone/gemma-saes", "layers.3/cfg.json", "layers.3/sae.safetensors")
    cache("someone/model", "config.json", "model.safetensors", "tokenizer.json")
    (sae,) = search("cached:yes").saes
    assert (sae.source, sae.format, sae.width) == ("someone/gemma-saes/layers.3", "sparsify", None)
    assert search("cached:yes gemma-saes").total == 1
    assert search("cached:yes other").total == search("cached:yes layer:3").total == 0


def test_offline_lists_what_the_cache_holds(cache, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["library", "gemma"]) == 0
    assert "cache holds no such SAE" in capsys.readouterr().out
    cache(RES, "layer_12/width_16k/average_l0_82/params.npz")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert main(["library", "gemma", "--offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 1
    assert main(["library", "gemma-2-2b", "cached:no", "--offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] > 1000


def test_saes_over_several_layers_are_found_by_any_of_them():
    found = search("kind:crosscoder layer:13")
    assert {sae.layers for sae in found.saes} == {(7, 13, 17, 22)}
    assert search("kind:crosscoder layer:14").total == 0
    clts = search("kind:clt google/gemma-2-2b layer:25 sort:width").saes
    assert [sae.width for sae in clts] == [26 * 16_384, 26 * 98_304]
    assert clts[0].place == "resid_mid.0-25 → mlp_out"
    sizes = [sae.bytes or 0 for sae in clts]
    # As on a disk: 26.51 and 159.05 GiB of files.
    assert [round(size / 2**30, 2) for size in sizes] == [26.51, 159.05]
    assert clts[0].memory == sizes[0] * 3 // 2
    (gemma,) = search("kind:clt width_262k_l0_medium gemma-scope-2-1b-pt sort:size").saes[:1]
    size = gemma.bytes or 0
    assert round(size / 2**30, 2) == 30.37
    # Decoders to earlier layers, nearly half of the file, are not read.
    assert gemma.memory == pytest.approx(size * 29 / 54 * 1.5)


@pytest.mark.parametrize(
    ("order", "value"),
    [("l0", lambda sae: sae.l0), ("size", lambda sae: sae.bytes), ("width", lambda sae: sae.width)],
)
def test_what_is_not_known_comes_last_either_way(order, value):
    for sign in ("", "-"):
        values = [value(sae) for sae in search(f"qwen layer<2 sort:{sign}{order}").saes]
        known = [one for one in values if one is not None]
        assert known == sorted(known, reverse=bool(sign))
        assert values[len(known) :] == [None] * (len(values) - len(known))
        assert 0 < len(known) < len(values)


def test_no_two_rows_look_alike():
    with parquet_look() as look:
        alike = look.ask(
            published.TABLE,
            "count(*) AS rows",
            "GROUP BY model, hook_point, target, width, l0, release, variant HAVING count(*) > 1",
        )
        unknown = look.ask(
            published.TABLE,
            "count(*) AS rows",
            "WHERE bytes IS NULL AND width IS NOT NULL AND inputs IS NOT NULL",
        )
    assert alike == []
    assert unknown == [{"rows": 0}]


def test_sizes_are_those_of_the_tensors():
    (skip,) = search("transcoder-llama-3.2-1b layer:0").saes
    assert skip.bytes == 2 * (2 * 131_072 * 2048 + 2048**2)  # bf16, with the skip connection
    assert search("size<10MB").total == 2
    assert search("size>=100GB").total == 2


def test_rows_are_read_from_a_registry():
    registry = {
        "qwen": {
            "conversion_func": "qwen_scope",
            "model": "Qwen/Qwen3-1.7B-Base",
            "repo_id": "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50",
            "saes": [{"id": "layer7", "path": "layer7.sae.pt", "l0": 50}],
        },
        "temporal": {"conversion_func": "temporal", "model": "m", "repo_id": "o/r", "saes": []},
        "clt": {
            "conversion_func": "mntss_clt_layer_transcoder",
            "model": "gemma-2-2b",
            "repo_id": "mntss/clt",
            "saes": [{"id": "layer_0", "path": 0}, {"id": "layer_1", "path": 1}],
        },
        "gpt2-small-mlp-out-v5-32k": {
            "model": "gpt2-small",
            "repo_id": "jbloom/GPT2-Small-OAI-v5-32k-mlp-out-SAEs",
            "saes": [{"id": "blocks.0.hook_mlp_out", "path": "v5_32k_layer_0"}],
        },
    }
    qwen, topk = rows(registry)
    assert (qwen["layer"], qwen["hook_point"], qwen["width"]) == (7, "resid_post.7", 32_768)
    assert (qwen["kind"], qwen["bytes"]) == ("sae", 2 * 32_768 * 2048 * 4)
    assert (topk["l0"], topk["width"]) == (32, 32_768)


@pytest.mark.parametrize(
    ("repository", "path", "name", "model", "layer", "point", "width"),
    [
        ("google/gs", "embedding/width_4k", "embedding", "m", None, "hook_embed", 4096),
        ("o/r", "what.pt", "what", "m", None, "", None),
        ("o/r", "layer_12/width_2pow15", "x", "m", 12, "resid_post.12", 32_768),
        ("f/L3R-8x", "L3R-8x", "l3r_8x", "m", 3, "resid_post.3", None),
        ("f/L3M-8x", "L3M-8x", "layer_3", "gpt2", 3, "mlp_out.3", 6144),
        ("o/r", "a", "blocks.4.hook_resid_pre", "gpt2", 4, "resid_pre.4", None),
        ("o/r", "x_ds512_y", "blocks.1.hook_mlp_out", "m", 1, "mlp_out.1", 512),
        ("google/gemma-scope-2b-pt-transcoders", "layer_5/width_16k", "layer_5/x", "m", 5,
         "blocks.5.ln2.hook_normalized", 16_384),
        ("o/r", "gpt2_hook_z_24576", "layer_2_hook_z", "m", 2, "z.2", 24_576),
        ("mwhanna/t", "layer_6.safetensors", "layer_6", "m", 6, "mlp_in.6", None),
        ("o/x-att", "layer_6", "layer_6", "m", 6, "z.6", None),
        ("o/x", "layer_6/width_1m/mlp_out", "layer_6", "m", 6, "mlp_out.6", 2**20),
    ],
)  # fmt: skip
def test_names_of_publishers_say_layer_point_and_width(
    repository, path, name, model, layer, point, width
):
    sae = {"id": name, "path": path}
    (row,) = rows({"release": {"model": model, "repo_id": repository, "saes": [sae]}})
    assert (row["layer"], row["hook_point"], row["width"]) == (layer, point, width)
    into = f"mlp_out.{layer}" if point.startswith(("mlp_in", "blocks")) else ""
    assert row["target"] == into
    assert row["licence"] == ("cc-by-4.0" if repository.startswith("google/gemma-scope") else "")


def test_a_damaged_table_is_one_sentence(tmp_path, monkeypatch, capsys):
    damaged = tmp_path / "published.parquet"
    damaged.write_bytes(b"PAR1 nothing")
    monkeypatch.setattr(published, "TABLE", damaged)
    assert main(["library", "gpt2"]) == 1
    assert "published.parquet is damaged" in capsys.readouterr().err


def test_the_command_line_gives_the_command_of_an_import(capsys):
    assert main(["library", "gpt2", "mlp-tm", "--layer", "3", "--json"]) == 0
    (sae,) = json.loads(capsys.readouterr().out)["saes"]
    assert sae["command"].endswith("--check --tokens 2000 --scale 1.895852216 --centred")
    assert main(["library", "layr:3"]) == 2
    assert main(["library", "--descending"]) == 2
    assert "--descending needs --sort" in capsys.readouterr().err
    assert main(["library", "--limit", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 of 13," in said
    assert "SAEs for" not in said  # the others are for other models
    assert main(["library", "--model", "google/gemma-2-2b", "--limit", "2"]) == 0
    assert " SAEs for google/gemma-2-2b;" in capsys.readouterr().out
    assert main(["library", "--sort", "size", "--descending", "--limit", "1", "--json"]) == 0
    (largest,) = json.loads(capsys.readouterr().out)["saes"]
    assert largest["repository"] == "mntss/clt-131k"
