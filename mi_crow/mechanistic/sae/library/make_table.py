"""Writes the table of published SAEs from SAELens' registry.

    pip download --no-deps sae-lens && unzip sae_lens-*.whl sae_lens/pretrained_saes.yaml
    python -m mi_crow.mechanistic.sae.library.make_table sae_lens/pretrained_saes.yaml

The registry says where an SAE is, on which model, and often its L0. The rest is read from the names
of folders and files, as their publishers made them; what they do not say stays empty.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mi_crow.language_model.model_names import hub_model
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.mechanistic.sae.library.published import TABLE, binary
from mi_crow.store.atomic import whole_file

# The registry's loaders by the family that they read. What is not here cannot be imported: temporal
# SAEs cannot be computed token by token.
_FAMILIES = {
    "gemma_3": "Gemma Scope 2",
    "gemma_2": "Gemma Scope",
    "gemma_2_transcoder": "Gemma Scope",
    "dictionary_learning_1": "dictionary_learning",
    "qwen_scope": "Qwen-Scope",
    "mwhanna_transcoder": "circuit-tracer",
    "mntss_clt_layer_transcoder": "circuit-tracer",
    "llama_scope": "Llama Scope",
    "llama_scope_r1_distill": "Llama-Scope-R1-Distill",
    "connor_rob_hook_z": "Kissane et al.",
    "goodfire": "Goodfire",
    "deepseek_r1": "qresearch",
    None: "SAELens",
}
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
# Width of the residual stream, and of the heads side by side where SAEs read those.
_WIDTHS = {
    "google/gemma-2b": (2048, 2048),
    "google/gemma-2b-it": (2048, 2048),
    "google/gemma-2-2b": (2304, 2048),
    "google/gemma-2-9b": (3584, 4096),
    "google/gemma-2-9b-it": (3584, 4096),
    "google/gemma-2-27b": (4608, 4096),
    "google/gemma-3-270m": (640, 1024),
    "google/gemma-3-270m-it": (640, 1024),
    "google/gemma-3-1b-pt": (1152, 1024),
    "google/gemma-3-1b-it": (1152, 1024),
    "google/gemma-3-4b-pt": (2560, 2048),
    "google/gemma-3-4b-it": (2560, 2048),
    "google/gemma-3-12b-pt": (3840, 4096),
    "google/gemma-3-12b-it": (3840, 4096),
    "google/gemma-3-27b-pt": (5376, 4096),
    "google/gemma-3-27b-it": (5376, 4096),
    "openai-community/gpt2": (768, 768),
    "EleutherAI/pythia-70m-deduped": (512, 512),
    "mistralai/Mistral-7B-v0.1": (4096, 4096),
    "meta-llama/Llama-3.1-8B": (4096, 4096),
    "meta-llama/Llama-3.1-8B-Instruct": (4096, 4096),
    "meta-llama/Meta-Llama-3-8B-Instruct": (4096, 4096),
    "meta-llama/Llama-3.3-70B-Instruct": (8192, 8192),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": (4096, 4096),
    "Qwen/qwen3-0.6b": (1024, 2048),
    "Qwen/qwen3-1.7b": (2048, 2048),
    "Qwen/qwen3-4b": (2560, 4096),
    "Qwen/qwen3-8b": (4096, 4096),
    "Qwen/qwen3-14b": (5120, 5120),
    "Qwen/Qwen3-1.7B-Base": (2048, 2048),
    "Qwen/Qwen3-8B-Base": (4096, 4096),
    "Qwen/Qwen3-30B-A3B-Base": (2048, 4096),
    "Qwen/Qwen2.5-7B-Instruct": (3584, 3584),
    "openai/gpt-oss-20b": (2880, 4096),
}
# What neither path nor dashboard says, from the publishers' pages.
_LATENTS = {
    "gpt2-small-res-jb": 24_576,
    "gemma-2b-res-jb": 16_384,
    "pythia-70m-deduped-res-sm": 32_768,
    "pythia-70m-deduped-mlp-sm": 32_768,
    "pythia-70m-deduped-att-sm": 32_768,
    "mistral-7b-res-wg": 65_536,
    "llama-3-8b-it-res-jh": 65_536,
    "goodfire-llama-3.1-8b-instruct": 65_536,
    "goodfire-llama-3.3-70b-instruct": 65_536,
    "llama-3.1-8b-instruct-andyrdt": 131_072,
    "qwen2.5-7b-instruct-andyrdt": 131_072,
    "gpt-oss-20b-andyrdt": 131_072,
}
_LICENCES = {"google/gemma-scope": "cc-by-4.0"}  # by the beginning of the repository's name


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
    yield from seen.values()


def _row(release: str, entry: dict[str, Any], sae: dict[str, Any]) -> dict[str, Any]:
    loader, model = entry.get("conversion_func"), hub_model(entry["model"])
    whole_set = loader == "mntss_clt_layer_transcoder"  # its layers are one transcoder
    path, dashboard = "" if whole_set else str(sae["path"]), sae.get("neuronpedia") or ""
    names = " ".join((entry["repo_id"], path, dashboard))
    layer = None if whole_set else _layer(path, str(sae["id"]))
    point = "" if whole_set else _point(entry["repo_id"], path, str(sae["id"]), layer)
    kind = point.partition(".")[0]
    target = f"mlp_out.{layer}" if kind in ("mlp_in", "blocks") else ""
    inputs = _WIDTHS.get(model)
    overrides = entry.get("config_overrides") or {}
    model_options = overrides.get("model_from_pretrained_kwargs") or {}
    # Files of these releases do not hold the factor of their inputs.
    scaled = loader is None and model == "openai-community/gpt2"
    return {
        "release": release,
        "name": "cross-layer transcoder" if whole_set else str(sae["id"]),
        "model": model,
        "layer": layer,
        "hook_point": point,
        "target": "every layer" if whole_set else target,
        "width": _LATENTS.get(release) or _width(names, inputs and inputs[0]),
        "l0": float(sae["l0"]) if sae.get("l0") else None,
        "inputs": inputs and inputs[1 if kind == "z" else 0],
        "format": _FAMILIES[loader],
        "repository": entry["repo_id"],
        "path": path,
        "licence": next(
            (value for name, value in _LICENCES.items() if entry["repo_id"].startswith(name)), ""
        ),
        "neuronpedia": "" if whole_set else dashboard,
        "scale": sae.get("norm_scaling_factor") if scaled else None,
        "centred": bool(model_options.get("center_writing_weights")),
    }


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

    registry = yaml.load(Path(sys.argv[1]).read_text(), Loader=yaml.CSafeLoader)
    table = pl.DataFrame(list(rows(registry)), infer_schema_length=None)
    table = table.sort("model", "release", "layer", "width", "l0", maintain_order=True)
    with whole_file(TABLE) as temporary:
        table.write_parquet(temporary, compression="zstd", compression_level=19)
    sys.stdout.write(f"{len(table):,} SAEs, {TABLE.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
