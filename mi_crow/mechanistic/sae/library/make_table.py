"""Writes the table of published SAEs from SAELens' registry and `pages`.

    pip download --no-deps sae-lens && unzip sae_lens-*.whl sae_lens/pretrained_saes.yaml
    python -m mi_crow.mechanistic.sae.library.make_table sae_lens/pretrained_saes.yaml

The registry says where an SAE is, on which model, and often its L0. The rest is read from the names
of folders and files, as their publishers made them, and from what `pages` lists; what neither says
stays empty. Sizes are those of the tensors that the family's files hold.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mi_crow.language_model.model_names import hub_model
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.mechanistic.sae.library.pages import (
    BF16,
    FP32,
    IN_BF16,
    LATENTS,
    LICENCES,
    MANY_LAYERS,
    PER_LAYER,
    TOP_K,
    WIDTHS,
    ManyLayers,
)
from mi_crow.mechanistic.sae.library.published import TABLE, binary
from mi_crow.store.atomic import whole_file

# The registry's loaders by the family that they read. What is not here cannot be imported: temporal
# SAEs cannot be computed token by token, and of a cross-layer transcoder it reads single layers.
_FAMILIES = {
    "gemma_3": "Gemma Scope 2",
    "gemma_2": "Gemma Scope",
    "gemma_2_transcoder": "Gemma Scope",
    "dictionary_learning_1": "dictionary_learning",
    "qwen_scope": "Qwen-Scope",
    "mwhanna_transcoder": "circuit-tracer",
    "llama_scope": "Llama Scope",
    "llama_scope_r1_distill": "Llama-Scope-R1-Distill",
    "connor_rob_hook_z": "Kissane et al.",
    "goodfire": "Goodfire",
    "deepseek_r1": "qresearch",
    None: "SAELens",
}
_KINDS = {"clt": "cross-layer transcoder", "crosscoder": "crosscoder"}
_POINTS = {  # parts of the publishers' paths and repositories
    "resid_post": "resid_post",
    "mlp_out": "mlp_out",
    "attn_out": "z",
    "transcoder": "mlp_in",
    "-res": "resid_post",
    "-mlp": "mlp_out",
    "-att": "z",
}
_LETTERS = {"R": "resid_post", "M": "mlp_out", "A": "attn_out"}  # of Llama Scope


def rows(registry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row an SAE; those with one path are one SAE, whose short id and dashboard are kept."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for release, entry in registry.items():
        if entry.get("conversion_func") not in _FAMILIES:
            continue
        for sae in entry["saes"]:
            row = _row(release, entry, sae)
            known = seen.setdefault((row["repository"], row["path"]), row)
            for name in ("l0", "neuronpedia", "width"):
                known[name] = known[name] or row[name]
    for row in seen.values():
        yield row | {"bytes": _bytes(row)}


def rows_of_pages() -> Iterator[dict[str, Any]]:
    """One row for each SAE of `pages` that the registry lacks."""
    for sae in MANY_LAYERS:
        yield _over_layers(sae)
    for repository, model, layers, width in PER_LAYER:
        for layer in range(layers):
            row = _EMPTY | {
                "release": repository.rpartition("/")[2],
                "name": f"layer_{layer}",
                "kind": "transcoder",
                "model": model,
                "layer": layer,
                "hook_point": f"resid_mid.{layer}",
                "target": f"mlp_out.{layer}",
                "width": width,
                "inputs": WIDTHS[model][0],
                "format": "circuit-tracer",
                "repository": repository,
                "path": f"layer_{layer}.safetensors",
                "licence": _licence(repository),
            }
            yield row | {"bytes": _bytes(row, skip=True)}


_EMPTY: dict[str, Any] = {
    "layers": [],
    "l0": None,
    "neuronpedia": "",
    "scale": None,
    "centred": False,
    "variant": "",
}


def _over_layers(sae: ManyLayers) -> dict[str, Any]:
    release = sae.repository.rpartition("/")[2]
    several = sae.format == "Gemma Scope 2"  # in one repository
    numbers = _numbers(sae.layers)
    return _EMPTY | {
        "release": f"{release}-{sae.kind}" if several else release,
        "name": sae.path.rpartition("/")[2] or _KINDS[sae.kind],
        "kind": sae.kind,
        "model": sae.model,
        "layer": None,
        "layers": list(sae.layers),
        "hook_point": f"{sae.read}.{numbers}" if sae.read else "",
        "target": sae.written if sae.kind == "clt" else "",
        "width": sae.width,
        "l0": sae.l0,
        "inputs": WIDTHS[sae.model][0],
        "format": sae.format,
        "repository": sae.repository,
        "path": sae.path,
        "licence": _licence(sae.repository),
        "variant": _variant(sae.path.rpartition("/")[2], sae.l0),
        "bytes": sae.bytes,
    }


def _numbers(layers: tuple[int, ...]) -> str:
    """`0-25` for all of them, `7,13,17,22` for some."""
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole else ",".join(map(str, layers))


def _licence(repository: str) -> str:
    found = (value for name, value in LICENCES.items() if repository.startswith(name))
    return next(found, "")


def _bytes(row: dict[str, Any], *, skip: bool = False) -> int | None:
    """Of the encoder and the decoder, and of a square for a skip connection."""
    if row["width"] is None or row["inputs"] is None:
        return None
    square = row["inputs"] ** 2 if skip or row["path"].endswith("_affine") else 0
    each = BF16 if row["format"] in IN_BF16 else FP32
    return each * (2 * row["width"] * row["inputs"] + square)


def _row(release: str, entry: dict[str, Any], sae: dict[str, Any]) -> dict[str, Any]:
    loader, model = entry.get("conversion_func"), hub_model(entry["model"])
    path, dashboard = str(sae["path"]), sae.get("neuronpedia") or ""
    names = " ".join((entry["repo_id"], path, dashboard))
    layer = _layer(path, str(sae["id"]))
    point = _point(entry["repo_id"], path, str(sae["id"]), layer)
    kind = point.partition(".")[0]
    target = f"mlp_out.{layer}" if kind in ("mlp_in", "blocks") else ""
    inputs = WIDTHS.get(model)
    l0 = sae.get("l0") or _l0(release, path)
    overrides = entry.get("config_overrides") or {}
    model_options = overrides.get("model_from_pretrained_kwargs") or {}
    # Files of these releases do not hold the factor of their inputs.
    scaled = loader is None and model == "openai-community/gpt2"
    return _EMPTY | {
        "release": release,
        "name": str(sae["id"]),
        "kind": "transcoder" if target else "sae",
        "model": model,
        "layer": layer,
        "hook_point": point,
        "target": target,
        "width": LATENTS.get(release) or _width(names, inputs and inputs[0]),
        "l0": float(l0) if l0 else None,
        "inputs": inputs and inputs[1 if kind == "z" else 0],
        "format": _FAMILIES[loader],
        "repository": entry["repo_id"],
        "path": path,
        "licence": _licence(entry["repo_id"]),
        "neuronpedia": dashboard,
        "scale": sae.get("norm_scaling_factor") if scaled else None,
        "centred": bool(model_options.get("center_writing_weights")),
        "variant": f"{_rule(dashboard)}{_variant(str(sae['id']), l0)}",
    }


# What of an SAE's name other columns say: its layer, hook point, width and L0.
_SAID = re.compile(
    r"(?:^|(?<=[/_.-]))(?:blocks\.\d+\.hook_[a-z]+(?:_(?:pre|mid|post|out))?(?:_\d+)?|layer_?\d+(?:_\d+)*"
    r"|(?:resid_post|mlp_out|attn_out|transcoder|embedding|crosscoder|clt)(?:_all)?"
    r"|width_\w+?(?=_l0|/|$)|average_l0_\d+|l\d+[rma]_\d+x|l\d+r|hook_z)(?=[/_.-]|$)"
)


def _rule(dashboard: str) -> str:
    """How an SAE of SAEBench was trained, which else only its release says: `topk `."""
    found = re.search(r"sae_bench-(\w+?)-res", dashboard)
    return "" if found is None else f"{found[1]} "


def _variant(name: str, l0: float | None) -> str:
    """What tells an SAE from others of its layer, hook point, width and L0: `trainer 3 step 0`."""
    left = _SAID.sub(" ", name)
    if l0 is not None:
        left = re.sub(r"l0_(?:small|medium|big)", " ", left)
    return " ".join(re.sub(r"[/_.]+", " ", left).replace(" - ", " ").split())


def _l0(release: str, path: str) -> float | None:
    """By the folder's name, or the k of TopK."""
    if (found := re.search(r"average_l0_(\d+)$", path)) is not None:
        return float(found[1])
    return next((float(k) for name, k in TOP_K.items() if release.startswith(name)), None)


def _layer(path: str, name: str) -> int | None:
    if "embedding" in path:
        return None
    for text in (name, path):
        found = re.search(r"(?:^|[._/-])(?:layer|blocks\.|l)_?(\d+)(?=[^\d]|$)", text.lower())
        if found is not None:
            return int(found[1])
    return None


def _point(repository: str, path: str, name: str, layer: int | None) -> str:
    if "embedding" in path:
        return "hook_embed"
    if layer is None:
        return ""
    if (letter := re.search(r"L\d+([RMA])(?:-|$)", path)) is not None:
        return f"{_LETTERS[letter[1]]}.{layer}"
    hook = re.match(r"blocks\.\d+\.hook_(?:resid_(?:pre|mid|post)|mlp_out|attn_out)", name)
    if hook is not None:
        return point_of(hook[0])
    if repository == "google/gemma-scope-2b-pt-transcoders":  # they read before the norm's gain
        return f"blocks.{layer}.ln2.hook_normalized"
    if "hook_z" in name:
        return f"z.{layer}"
    if repository.startswith("mwhanna/"):
        return f"mlp_in.{layer}"
    kind = next((point for part, point in _POINTS.items() if part in path), "") or next(
        (point for part, point in _POINTS.items() if repository.endswith(part)), "resid_post"
    )
    return f"{kind}.{layer}"


def _width(names: str, inputs: int | None) -> int | None:
    """The number of latents by the names: `width_16k` is 2^14, as is `W16K`."""
    if (found := re.search(r"width[_-]2pow(\d+)", names)) is not None:
        return 2 ** int(found[1])
    exact = re.search(r"_ds(\d+)_|hook_[a-z_]+_(\d{3,6})(?=[: ]|$)", names)
    if exact is not None:
        return int(exact[1] or exact[2])
    if inputs and (found := re.search(r"-(\d+)x(?= |$|/)", names)) is not None:
        return int(found[1]) * inputs
    for pattern in (r"width_(\d+)([km])", r"-w-?(\d+)(k)", r"-v5-(\d+)(k)", r"-(\d+)(k)(?=__|$)"):
        if (found := re.search(pattern, names.lower())) is not None:
            return int(binary(int(found[1]))) * (1024 if found[2] == "k" else 2**20)
    return None


def main() -> None:
    import polars as pl
    import yaml

    layers = pl.List(pl.UInt16)
    registry = yaml.load(Path(sys.argv[1]).read_text(), Loader=yaml.CSafeLoader)
    found = [*rows(registry), *rows_of_pages()]
    table = pl.DataFrame(found, infer_schema_length=None, schema_overrides={"layers": layers})
    several = pl.col("layers").list.len() > 0  # the largest by far, so not the first to be seen
    order = ("model", several, "release", "layer", "width", "l0")
    table = table.sort(*order, maintain_order=True)
    with whole_file(TABLE) as temporary:
        table.write_parquet(temporary, compression="zstd", compression_level=19)
    sys.stdout.write(f"{len(table):,} SAEs, {TABLE.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
