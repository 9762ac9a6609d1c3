"""Reading Gemma Scope 2's CLTs and crosscoders: `params_layer_<i>.safetensors` and `config.json`.

z_i = jumprelu(x_i w_enc_i + b_enc_i), y_j = b_dec_j + sum over i <= j of z_i w_dec_i[:, j], for an
affine CLT plus x_j A_j. Decoders to earlier layers are never read. File i is of the i-th of the
layers that the configuration, or else the folder, names.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.cross_layer.record import (
    CROSSCODER,
    TRANSCODER,
    CrossLayerRecord,
    LayerRecord,
)
from mi_crow.mechanistic.sae.formats.gemma_scope_2 import AFFINE, TENSORS, model_of, origin_of
from mi_crow.mechanistic.sae.formats.marks import GEMMA_SCOPE_2_SET
from mi_crow.mechanistic.sae.formats.tensor_files import (
    check_all_there,
    check_decoders,
    check_tensors,
    read_safetensors,
)
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.json_file import read_object

_KINDS = {"clt": TRANSCODER, "crosscoder": CROSSCODER}
_LIST = re.compile(r"\{([^{}]*)\}")
_FOLDER = re.compile(r"(?:^|/)layers?_(\d+(?:_\d+)*)_width")
_KIND_FOLDER = re.compile(r"(?:^|/)(clt|crosscoder)(?:_all)?(?:/|$)")


def read_gemma_scope_2_set(
    paths: Sequence[Path], config: Path | None, place: str
) -> CrossLayerRecord:
    """The SAE in `paths`, one file a layer, described by `config`; without one, by the names in
    `place`, where it came from. Raises UserError naming what is not known, CorruptDataError where
    files are missing or do not fit each other."""
    folder = paths[0].parent
    wanted = {f"params_layer_{number}.safetensors" for number in range(len(paths))}
    check_all_there(folder, wanted, [path.name for path in paths])
    kind, model, reads, writes = (
        _named(place, len(paths)) if config is None else _described(config, place, len(paths))
    )
    numbers = [_number(name, folder) for name in reads]
    layers = []
    for at, path in enumerate(paths):
        found = read_safetensors(path)
        decoder = found.get("w_dec")
        rest = {name: ref for name, ref in found.items() if name != "w_dec"}
        required = [name for name in TENSORS if name != "w_dec" or decoder is None]
        optional = (AFFINE,) if kind == TRANSCODER else ()
        check_tensors(rest, required, path, GEMMA_SCOPE_2_SET.format, optional)
        assert decoder is not None
        check_decoders(decoder, len(paths), "w_dec", path)
        layers.append(
            LayerRecord(
                numbers[at],
                reads[at],
                writes[at],
                rest["w_enc"].t(),
                rest["b_enc"],
                {numbers[to]: decoder.at(1, to) for to in range(at, len(paths))},
                rest["b_dec"],
                rest["threshold"],
                rest[AFFINE].t() if AFFINE in rest else None,
            )
        )
    record = CrossLayerRecord(
        kind,
        tuple(layers),
        SaeMetadata(model_name=model, prepend_bos=True),
        format=GEMMA_SCOPE_2_SET.format,
    )
    return record.checked(str(folder))


def _described(config: Path, place: str, n: int) -> tuple[str, str, list[str], list[str]]:
    """Kind, model and the hook points of each layer, in and out, that the configuration names."""
    cfg = read_object(config, unique_keys=True)
    folder = _KIND_FOLDER.search(place)
    kind = cfg.text("type") if folder is None else cfg.text("type", folder[1])
    if kind not in _KINDS:
        raise UserError(
            f"{config} describes a {kind!r}, which is not known for files of several layers",
            hint=f"supported: {', '.join(_KINDS)}",
        )
    model, *hooks = origin_of(cfg, place, transcodes=_KINDS[kind] == TRANSCODER)
    points = [_expanded(hook, n, config) for hook in hooks]
    return _KINDS[kind], model, points[0], points[1]


def _expanded(hook: str, n: int, config: Path) -> list[str]:
    """`model.layers.{7,13}.output` or `{all}` as one short name a layer."""
    match = _LIST.search(hook)
    words = [] if match is None else match[1].split(",")
    if words == ["all"]:
        words = [str(number) for number in range(n)]
    if len(words) != n or not all(re.fullmatch(r"\s*\d{1,4}\s*", word) for word in words):
        raise CorruptDataError(f"{config} names the hook point {hook!r} for {n} files of layers")
    names = [_LIST.sub(word.strip(), hook) for word in words]
    return [point_of(name) or name for name in names]


def _named(place: str, n: int) -> tuple[str, str, list[str], list[str]]:
    """The same by the names of the repository and its folders. Raises UserError where they do not
    say it."""
    kind, layers = _KIND_FOLDER.search(place), _FOLDER.search(place)
    if kind is None or (kind[1] == "crosscoder" and layers is None):
        raise UserError(
            f"{place!r} has no config.json, and its folders do not say which layers it is of",
            hint="download config.json too",
        )
    numbers = [int(number) for number in layers[1].split("_")] if layers else list(range(n))
    if len(numbers) != n:
        raise CorruptDataError(f"{place!r} names {len(numbers)} layers and holds {n} files")
    points = ("mlp_in", "mlp_out") if kind[1] == "clt" else ("resid_post", "resid_post")
    reads, writes = ([f"{point}.{number}" for number in numbers] for point in points)
    return _KINDS[kind[1]], model_of(place), reads, writes


def _number(name: str, folder: Path) -> int:
    number = number_of(name)
    if number is None:
        raise UserError(f"{folder} is of the hook point {name!r}, which is not known")
    return number
