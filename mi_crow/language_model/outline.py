"""What a model's files say without loading it: how many blocks, how wide, its modules. Torch-free.

The hook points of a loaded model are in `hook_points`; these are for choosing one before that.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mi_crow.errors import LayerNotFoundError, MiCrowError, nearest
from mi_crow.language_model.gguf_header import read_values
from mi_crow.language_model.hook_points.names import EMBEDDING, SHORT, number_of, short_name
from mi_crow.language_model.model_names import hub_model
from mi_crow.paths import expanded
from mi_crow.store.json_file import read_json
from mi_crow.store.safetensors_header import read_header

_RANDOM = "random:"  # a model of this architecture with random weights
_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_MOST_MODULES = 20_000  # a mixture of experts has a hundred thousand
_BLOCKS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_GGUF_ENDINGS = (
    ".block_count",
    ".embedding_length",
    ".attention.head_count",
    ".attention.value_length",
    ".context_length",
)

# What the blocks are in, their number, and what follows it.
_NUMBERED = re.compile(r"(?:.*?\.)??(?:(\w+)\.)?(\d{1,9})((?:\..*)?)")
_BLOCK_LISTS = ("layers", "h", "blocks", "block")  # one name for another, as HookPoints takes them
# Modules without weights, or with those of another module: no file names them.
_UNNAMED = re.compile(r"act|drop|emb|gelu|head|norm|pool|relu|rotary|silu|softmax")


@dataclass(frozen=True)
class Outline:
    """A model as its files describe it."""

    blocks: int
    width: int  # d, of the residual stream
    heads_width: int | None = None  # what attention's output projection reads, where that is known
    context: int | None = None  # tokens
    file_bytes: int = 0  # of the weights
    modules: tuple[str, ...] = ()  # names, where the weights' header has them
    # Shapes by name, where one file holds all weights; [out, in] for a linear map.
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def points(self) -> Iterator[tuple[str, int]]:
        """The short names that such a model has, with their widths: the residual stream after each
        block first. A model may lack some of the others, which only shows when it is loaded."""
        kinds = ("resid_post", *(kind for kind in SHORT if kind != "resid_post"))
        for kind in kinds:
            width = self.heads_width if kind == "z" else self.width
            if width is not None:
                yield from ((f"{kind}.{number}", width) for number in range(self.blocks))

    def width_at(self, layer: str) -> int | None:
        """The width at a short name or a block's name; None where that is not known."""
        block = _NUMBERED.fullmatch(layer)
        if block is not None and block[1] in _BLOCK_LISTS and not block[3]:
            layer = f"resid_post.{int(block[2])}"
        return dict(self.points()).get(short_name(layer))


def outline_of(
    model: str, revision: str | None = None, gguf_file: str | None = None
) -> Outline | None:
    """The outline of a model whose files are on this machine; None without them, or where they do
    not say. Never asks the network, never raises for damaged files."""
    try:
        place = place_of(model, revision)
        if place is None:
            return None
        if place.is_file() or gguf_file is not None:
            return _of_gguf(place if place.is_file() else place / str(gguf_file))
        return _of_folder(place)
    except (MiCrowError, OSError, ValueError, TypeError):
        return None


def has_chat_template(model: str, revision: str | None = None) -> bool | None:
    """Whether the files of a model's tokenizer have a chat template; None where they do not say.
    Never asks the network, never raises for damaged files."""
    try:
        place = place_of(model, revision)
        if place is None or not (settings := place / "tokenizer_config.json").is_file():
            return None
        if [*place.glob("chat_template*"), *place.glob("tekken*"), *place.glob("additional_chat*")]:
            return True
        held = read_json(settings)
        return bool(held.get("chat_template")) if isinstance(held, dict) else None
    except (MiCrowError, OSError, ValueError, TypeError):
        return None


def check_layers(names: Iterable[str], found: Outline | None) -> None:
    """Raises LayerNotFoundError for a layer that a model with this outline cannot have. What its
    files leave open passes: the loaded model decides."""
    for name in names:
        if found is not None and not _may_have(found, name):
            known = [*(point for point, _ in found.points()), *found.modules]
            raise LayerNotFoundError(
                f"the model has no layer {name[:60]!r}",
                hint=f"it has {found.blocks} blocks, with {nearest(name[:60], known)}",
            )


def _may_have(found: Outline, name: str) -> bool:
    if re.fullmatch(r"-?\d+", name):
        return len(name) < 10 and -found.blocks <= int(name) < found.blocks
    number = number_of(short_name(name))
    if number is not None:
        return number < found.blocks
    if name == EMBEDDING or "hook_" in name:
        return True
    name = name.removesuffix(".input")
    inside = _NUMBERED.fullmatch(name)
    if inside is not None and (name.partition(".")[0] in SHORT or int(inside[2]) >= found.blocks):
        return False
    # The names in files of mixtures of experts are not those of the loaded modules.
    whole = 0 < len(found.modules) <= _MOST_MODULES and not any(
        "expert" in m for m in found.modules
    )
    return not whole or _place_in(name) in {_place_in(one) for one in _with_unnamed(found, name)}


def _with_unnamed(found: Outline, name: str) -> Iterator[str]:
    """The modules of the files, and `name` where it is beside them and may have no weights."""
    yield from found.modules
    parent, _, last = name.rpartition(".")
    beside = not parent or _place_in(parent) in {_place_in(one) for one in found.modules}
    if beside and _UNNAMED.search(last):
        yield name


def _place_in(name: str) -> str:
    """A module's place as every prefix gives it: from its block's number on, or its last part."""
    inside = _NUMBERED.fullmatch(name)
    if inside is None:
        return name.rpartition(".")[2]
    listed, number, rest = inside.groups()
    return f"{'' if listed in _BLOCK_LISTS else listed or ''}.{number}{rest}"


def cached_models() -> list[str]:
    """The hub's models in the local cache, by name; no other repositories, nothing half there."""
    found = []
    for folder in sorted(_cache().glob("models--*--*")):
        snapshot = _snapshot(folder, None)
        if snapshot is not None and (snapshot / _CONFIG).is_file():
            found.append("/".join(folder.name.split("--")[1:]))
    return found


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def place_of(model: str, revision: str | None) -> Path | None:
    """The folder or the .gguf file of a model, of one with random weights those of which it has the
    architecture; None when it is not here."""
    model = model.removeprefix(_RANDOM)
    if not model.strip():
        return None
    if model == "sample":
        from sample_data import model_path

        return model_path()
    path = expanded(model)
    if path.is_dir() or path.is_file():
        return path
    owner, _, rest = hub_model(model).partition("/")
    name, _, file = rest.partition("/")
    folder = _cache() / "--".join(part for part in ("models", owner, name) if part)
    snapshot = _snapshot(folder, revision)
    return snapshot / file if snapshot is not None and file else snapshot


def _snapshot(folder: Path, revision: str | None) -> Path | None:
    """The folder of a revision of a cached repository."""
    snapshots = folder / "snapshots"
    try:
        commit = (folder / "refs" / (revision or "main")).read_text().strip()
    except (OSError, ValueError):
        commit = revision or ""
    if commit and (snapshots / commit).is_dir():
        return snapshots / commit
    return None


def _of_folder(folder: Path) -> Outline | None:
    data = read_json(folder / _CONFIG)
    if not isinstance(data, dict):
        return None
    text = data.get("text_config")
    config = text if isinstance(text, dict) else data
    blocks, width = _first(config, _BLOCKS), _first(config, _WIDTH)
    if blocks is None or width is None:
        return None
    heads = _first(config, _HEADS)
    # Latent attention has widths of its own, which its configurations name in many ways.
    own = "v_head_dim" in config or "kv_lora_rank" in config
    heads_width = None
    if heads is not None and not own:
        heads_width = heads * (_first(config, ("head_dim",)) or width // heads)
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    names, shapes = _tensors(folder)
    return Outline(
        blocks,
        width,
        heads_width,
        _first(config, _CONTEXT),
        sum(os.stat(file).st_size for file in weights),
        _modules(names),
        shapes,
    )


def _of_gguf(path: Path) -> Outline | None:
    values = read_values(path, _GGUF_ENDINGS)
    named = {key.partition(".")[2]: value for key, value in values.items()}
    blocks, width = _first(named, ("block_count",)), _first(named, ("embedding_length",))
    if blocks is None or width is None:
        return None
    heads = _first(named, ("attention.head_count",))
    value_width = _first(named, ("attention.value_length",))
    heads_width = heads * (value_width or width // heads) if heads is not None else None
    context = _first(named, ("context_length",))
    return Outline(blocks, width, heads_width, context, path.stat().st_size)


def _tensors(folder: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """The names of the weights, and their shapes where one file holds all of them."""
    index = folder / _INDEX
    single = folder / "model.safetensors"
    if index.is_file():
        return list(read_json(index).get("weight_map") or {}), {}
    if not single.is_file():
        return [], {}
    with single.open("rb") as file:
        entries = read_header(file, str(single))[0]
    return list(entries), {name: _shape(entry) for name, entry in entries.items()}


def _shape(entry: object) -> tuple[int, ...]:
    """The shape in a header's entry; none where the entry is not as it should be."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        return ()
    return tuple(shape)


def _modules(tensors: Iterable[str]) -> tuple[str, ...]:
    """The names of the modules with weights, and of those around them."""
    names: dict[str, None] = {}
    for tensor in tensors:
        parts = tensor.split(".")[:-1]
        for end in range(1, len(parts) + 1):
            names.setdefault(".".join(parts[:end]))
        if len(names) > _MOST_MODULES:
            break
    return tuple(names)


def _first(values: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """The first of `keys` that is a positive whole number."""
    for key in keys:
        value = values.get(key)
        if type(value) is int and value > 0:
            return value
    return None
