"""Reading a cross-layer SAE from our own layout: `cfg.json` that names its layers."""

from pathlib import Path

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.sae.cross_layer.record import (
    KINDS,
    CrossLayerRecord,
    LayerRecord,
    ModelRead,
)
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.formats.saelens_config import dtype_of
from mi_crow.mechanistic.sae.formats.tensor_files import read_safetensors
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME, SaeMetadata
from mi_crow.store.json_file import read_object
from mi_crow.store.json_object import JsonObject


def is_cross_layer(cfg: JsonObject) -> bool:
    """Whether a `cfg.json` is of this layout."""
    return cfg.values.get("architecture") in KINDS and "layers" in cfg.values


def read_cross_layer(folder: Path) -> CrossLayerRecord:
    """The SAE in `folder`. Raises NotFoundError for a missing file, CorruptDataError when the files
    do not fit each other."""
    cfg = read_object(folder / CONFIG_NAME, unique_keys=True)
    tensors = read_safetensors(folder / WEIGHTS_NAME)
    layers, used = [], set[str]()

    def tensor(name: str) -> TensorRef:
        if name not in tensors:
            raise CorruptDataError(f"{folder / WEIGHTS_NAME} has no {name}")
        used.add(name)
        return tensors[name]

    for one in cfg.objects("layers"):
        number = one.integer("number", least=0)
        optional = {name: f"{name}.{number}" for name in ("threshold", "W_skip")}
        layers.append(
            LayerRecord(
                number,
                one.text("read"),
                one.text("written"),
                _matrix(tensor(f"encoder_rows.{number}"), folder),
                tensor(f"b_enc.{number}"),
                {to: tensor(f"W_dec.{number}.{to}") for to in one.integers("writes_to")},
                _vector(tensor(f"b_dec.{number}"), folder),
                **{name: tensor(key) for name, key in optional.items() if key in tensors},
                model=one.text("model", ""),
            )
        )
    if left := sorted(tensors.keys() - used):
        raise CorruptDataError(
            f"{folder / WEIGHTS_NAME} holds {left[0]}, which belongs to no layer"
        )
    record = CrossLayerRecord(
        cfg.text("architecture"),
        tuple(layers),
        SaeMetadata.from_json(dict(cfg.object("metadata").values), cfg.place),
        dtype=dtype_of(cfg),
        shared=cfg.flag("shared", False),
        k=cfg.integer("k", None, least=1),
        models=tuple(_model(one) for one in cfg.objects("models", ())),
    )
    return record.checked(str(folder))


def _model(one: JsonObject) -> ModelRead:
    revision, run_id = one.text("revision", None), one.text("run_id", None)
    return ModelRead(one.text("role"), one.text("name"), revision, run_id)


def _matrix(ref: TensorRef, folder: Path) -> TensorRef:
    if len(ref.shape) != 2 or 0 in ref.shape:
        raise CorruptDataError(f"{folder} holds {ref.shape} where a matrix must be")
    return ref


def _vector(ref: TensorRef, folder: Path) -> TensorRef:
    if len(ref.shape) != 1 or 0 in ref.shape:
        raise CorruptDataError(f"{folder} holds {ref.shape} where a vector must be")
    return ref
