"""What a model's files say without loading it: widths, modules, the hub's cache, damaged files."""

import json
import struct
from pathlib import Path

import pytest

from mi_crow.errors import LayerNotFoundError
from mi_crow.language_model.outline import (
    Outline,
    cached_models,
    check_layers,
    has_chat_template,
    outline_of,
)

CONFIG = {"num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9}


def known(model: str | Path, **where: str) -> Outline:
    """The outline of a model that has one."""
    found = outline_of(str(model), **where)
    assert found is not None
    return found


def model_folder(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def gguf(path: Path, values: dict[str, object]) -> Path:
    """A GGUF header with these values: texts, whole numbers, lists of texts."""
    text = lambda one: struct.pack("<Q", len(one)) + one.encode()  # noqa: E731
    body = b""
    for key, value in values.items():
        body += text(key)
        if isinstance(value, str):
            body += struct.pack("<I", 8) + text(value)
        elif isinstance(value, list):
            body += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        else:
            body += struct.pack("<II", 4, value)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + body)
    return path


@pytest.mark.parametrize(
    ("config", "blocks", "width", "heads"),
    [
        (CONFIG, 30, 576, 576),
        ({**CONFIG, "head_dim": 128}, 30, 576, 1152),
        ({"n_layer": 12, "n_embd": 768, "n_head": 12}, 12, 768, 768),
        ({"text_config": CONFIG, "vision_config": {"hidden_size": 1}}, 30, 576, 576),
        ({**CONFIG, "kv_lora_rank": 64}, 30, 576, None),
    ],
)
def test_the_configuration_says_blocks_and_widths(tmp_path, config, blocks, width, heads):
    found = known(model_folder(tmp_path / "m", **config))
    assert (found.blocks, found.width, found.heads_width) == (blocks, width, heads)


def test_the_points_are_the_stream_first_and_z_as_wide_as_its_heads(tmp_path):
    folder = model_folder(tmp_path / "m", **{**CONFIG, "head_dim": 128, "num_hidden_layers": 2})
    points = dict(known(folder).points())
    assert list(points)[:2] == ["resid_post.0", "resid_post.1"]
    assert points["mlp_out.1"] == 576
    assert points["z.0"] == 1152
    assert "z.2" not in points


def test_a_block_and_its_points_have_the_width_of_the_stream(tmp_path):
    found = Outline(2, 8, heads_width=6)
    for layer, width in (
        ("resid_post.1", 8),
        ("model.layers.1", 8),
        ("blocks.0.hook_resid_pre", 8),
        ("z.0", 6),
        ("resid_post.2", None),
        ("model.layers.1.mlp.up_proj", None),
    ):
        assert found.width_at(layer) == width


def test_the_files_of_a_tokenizer_say_whether_it_has_a_chat_template(tmp_path):
    settings = tmp_path / "tokenizer_config.json"
    assert has_chat_template(str(tmp_path)) is None
    settings.write_text("{}")
    assert has_chat_template(str(tmp_path)) is False
    settings.write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert has_chat_template(str(tmp_path)) is True
    settings.write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert has_chat_template(str(tmp_path)) is True
    settings.write_text("torn")
    (tmp_path / "chat_template.jinja").unlink()
    assert has_chat_template(str(tmp_path)) is None


def test_a_gguf_file_says_the_same_in_its_header(tmp_path):
    path = gguf(
        tmp_path / "m.gguf",
        {
            "tokenizer.ggml.tokens": ["a", "b", "ccc"],
            "general.architecture": "llama",
            "llama.block_count": 16,
            "llama.embedding_length": 2048,
            "llama.attention.head_count": 32,
            "llama.context_length": 8192,
        },
    )
    for found in (known(path), known(tmp_path, gguf_file="m.gguf")):
        assert (found.blocks, found.width, found.heads_width) == (16, 2048, 2048)
        assert found.context == 8192


def test_the_cache_of_the_hub_is_looked_into_without_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    here = tmp_path / "models--org--small"
    model_folder(here / "snapshots" / "abc", **CONFIG)
    (here / "refs").mkdir()
    (here / "refs" / "main").write_text("abc")
    (tmp_path / "models--org--half" / "refs").mkdir(parents=True)
    (tmp_path / "datasets--org--texts").mkdir()
    assert cached_models() == ["org/small"]
    assert known("org/small").blocks == 30
    assert known("random:org/small").blocks == 30
    assert known("org/small", revision="abc").blocks == 30
    assert outline_of("org/small", revision="other") is None
    assert outline_of("org/half") is None
    assert outline_of("org/none") is None


@pytest.mark.parametrize(
    "config", ["", "[]", "{}", '{"hidden_size": "x", "num_hidden_layers": 3}', '{"text_config": 3}']
)
def test_a_configuration_that_does_not_say_is_no_outline(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    assert outline_of(str(tmp_path)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"GGML" + bytes(20),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + bytes([99, 0, 0, 0]),
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + struct.pack("<Q", 1)
        + b"k"
        + struct.pack("<IIQ", 9, 8, 2**60),
    ],
)
def test_a_damaged_gguf_file_is_no_outline(tmp_path, data):
    (tmp_path / "m.gguf").write_bytes(data)
    assert outline_of(str(tmp_path / "m.gguf")) is None


def test_nothing_is_a_model(tmp_path):
    assert outline_of("") is None
    assert outline_of(str(tmp_path)) is None
    assert outline_of("a/b/c/d\0") is None


BLOCK = ("self_attn", "self_attn.o_proj", "mlp", "mlp.up_proj")
MODULES = ("model", "model.embed_tokens", "model.layers", "model.norm")
MODULES += tuple(
    f"model.layers.{n}{'.' * bool(part)}{part}" for n in (0, 1) for part in ("", *BLOCK)
)


@pytest.mark.parametrize(
    "name",
    [
        *("resid_post.1", "1", "-2", "blocks.0.hook_mlp_out", "hook_embed", "blocks.1.attn.hook_q"),
        *("model.layers.1", "model.layers.0.mlp.input", "model.norm", "lm_head"),
        # The same block by another prefix, and modules that no file names.
        *("h.0.mlp", "wrapped.model.layers.1.mlp", "model.layers.0.mlp.act_fn"),
    ],
)
def test_a_layer_that_the_model_may_have_passes(name: str):
    check_layers([name], Outline(2, 8, modules=MODULES))


@pytest.mark.parametrize(
    "name",
    [
        *("resid_post.2", "2", "-3", "9" * 40, "blocks.7.hook_mlp_out", "resid_pots.1", "mlp_in.x"),
        *("model.layers.2.mlp", "model.layers.0.mpl", "model.layers.0.mpl.act_fn", "banana"),
        *("model.layers.0.mlp.input.input", "", "a.b.c", "9.9.9", "mlp"),
    ],
)
def test_a_layer_that_the_model_cannot_have_is_named_with_some_that_it_has(name: str):
    with pytest.raises(LayerNotFoundError) as caught:
        check_layers(["resid_post.0", name], Outline(2, 8, modules=MODULES))
    assert f"no layer {name[:60]!r}; it has 2 blocks, with " in caught.value.sentence


def test_what_the_files_do_not_say_is_left_to_the_loaded_model():
    check_layers(["anything.at.all"], None)
    check_layers(["anything.at.all", "resid_post.1"], Outline(2, 8))  # as a GGUF file
    mixture = ("model.layers.0.block_sparse_moe.experts.0.w1",)  # loaded as model.layers.0.mlp
    check_layers(["model.layers.0.mlp"], Outline(2, 8, modules=mixture))
    with pytest.raises(LayerNotFoundError):
        check_layers(["resid_post.2"], Outline(2, 8))
