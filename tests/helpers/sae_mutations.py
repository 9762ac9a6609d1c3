"""Mutated SAE files: seeded changes of their configurations and tensors, and which are allowed.

A change is allowed to be taken when it leaves the rule as it was, or when the rule that is computed
changes as it says. Which keys say something about the rule, and which values they may have, is
written here apart from the library.
"""

import copy
import io
import json
import os
import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from tests.helpers.sae_files import MAKERS, D, K, M

MISSING = object()


@dataclass(frozen=True)
class Key:
    """A key of the rule: which values may be taken, and which of them mean the same."""

    takes: Callable[[Any], bool]
    meaning: Callable[[Any], Any] = lambda value: value
    shows: bool = True  # whether another meaning has to give other figures


@dataclass(frozen=True)
class Subject:
    """One kind of file to mutate."""

    maker: str
    keys: dict[str, Key] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()  # tensors that may be there and do not matter


def _whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # also false for NaN


def _count(value: Any) -> bool:
    return _whole(value) and value > 0


def _absent(value: Any) -> bool:
    return value is MISSING or value is None


def _is(wanted: Any, *, missing: bool = True) -> Key:
    return Key(
        lambda value: (missing and _absent(value)) or (value == wanted and not _flag(value)),
        lambda _: None,
    )


def _flag(value: Any) -> bool:
    return type(value) is bool


def _switch(default: bool, *, null: bool = False) -> Key:
    """true or false."""
    return Key(
        lambda value: _flag(value) or value is MISSING or (null and value is None),
        lambda value: default if _absent(value) else value,
    )


def _fixed(wanted: bool) -> Key:
    return Key(lambda value: _absent(value) or value is wanted, lambda _: None)


def _one_of(*known: str, default: str, shows: bool = True) -> Key:
    return Key(
        lambda value: _absent(value) or value in known,
        lambda value: default if _absent(value) else value,
        shows,
    )


_ANY_TEXT = Key(lambda value: _absent(value) or isinstance(value, str), shows=False)
_K = Key(_count)
_DTYPE = Key(
    lambda value: (
        _absent(value)
        or str(value).removeprefix("torch.") in ("float32", "float64", "float16", "bfloat16")
    ),
    shows=False,
)
_SAELENS = {
    "architecture": _ANY_TEXT,
    "d_in": _is(D, missing=False),
    "d_sae": _is(M, missing=False),
    "dtype": _DTYPE,
    "apply_b_dec_to_input": _switch(True),
    "normalize_activations": _one_of("none", "layer_norm", "constant_norm_rescale", default="none"),
    "reshape_activations": _one_of("none", "hook_z", default="none", shows=False),
}
_OLD = {
    **_SAELENS,
    "normalize_activations": Key(
        lambda value: _absent(value) or value is False or value in ("none", "layer_norm"),
        lambda value: "none" if _absent(value) or value is False else value,
    ),
    "finetuning_scaling_factor": _fixed(False),
    "activation_fn_str": _one_of("relu", "topk", default="relu", shows=False),
    "activation_fn": _one_of("relu", "topk", default="relu", shows=False),
}
_SPARSIFY = {
    "k": _K,
    "d_in": _is(D, missing=False),
    "num_latents": _is(M, missing=False),
    "activation": _one_of("topk", "groupmax", default="topk"),
    "transcode": _switch(False, null=True),
    "skip_connection": _switch(False, null=True),
    "signed": _fixed(False),
}
_DICTIONARY = {"trainer.dict_class": _ANY_TEXT}
_LLAMA = {
    "jump_relu_threshold": Key(_number),
    "dataset_average_activation_norm.in": Key(lambda value: _number(value) and value > 0),
    "d_model": _is(D),
    "d_sae": _is(M),
    "act_fn": _is("jumprelu"),
    "norm_activation": _is("dataset-wise"),
    "use_decoder_bias": _fixed(True),
    "apply_decoder_bias_to_pre_encoder": _fixed(False),
    "use_glu_encoder": _fixed(False),
    "hook_point_in": _ANY_TEXT,
    "hook_point_out": _ANY_TEXT,
}

SUBJECTS: dict[str, tuple[Subject, ...]] = {
    "saelens": (
        Subject(
            "saelens_rescaled",
            {**_SAELENS, "k": _K, "rescale_acts_by_decoder_norm": _switch(False)},
        ),
        Subject("saelens_gated", _SAELENS),
        Subject(
            "saelens_jumprelu_skip_transcoder",
            {
                **_SAELENS,
                "apply_b_dec_to_input": Key(
                    lambda value: _flag(value) or value is MISSING, lambda _: None
                ),
                "normalize_activations": _one_of("none", default="none"),
                "d_out": _is(7),
            },
        ),
    ),
    "saelens_before_6": (
        Subject("old_saelens_topk", {**_OLD, "activation_fn_kwargs.k": _K}),
        Subject("old_saelens_standard", _OLD, frozenset(["scaling_factor"])),
    ),
    "sparsify": (
        Subject("sparsify_groupmax", _SPARSIFY),
        Subject("sparsify_skip_transcoder", _SPARSIFY),
    ),
    "dictionary_learning": (
        Subject(
            "dictionary_topk",
            {**_DICTIONARY, "trainer.k": _is(K), "trainer.activation_dim": _is(D)},
            frozenset(["threshold", "k"]),
        ),
        Subject("dictionary_matryoshka", {**_DICTIONARY, "trainer.k": _is(K)}, frozenset(["k"])),
        Subject("dictionary_new", _DICTIONARY),
    ),
    "gemma_scope": (Subject("gemma_scope"),),
    "llama_scope": (Subject("llama_scope", _LLAMA),),
    "openai": (
        Subject(
            "openai_topk",
            {
                "activation": Key(lambda value: value in ("TopK", "ReLU")),
                "activation_state_dict.k": _K,
                "activation_state_dict.postact_fn": _one_of("ReLU", default="ReLU"),
            },
        ),
    ),
}

_DEEP: Any = 0
for _ in range(150):
    _DEEP = [_DEEP]
_POOL: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 1.5, 4.0, 5, 64, 10**30, 10**400),
    *(float("nan"), float("inf"), -float("inf"), 1e308, 1e-300, 1e5),
    *("", "false", "true", "4", "nan", "none", "layer_norm", "float16", "topk", "relu", "\ud800x"),
    *([], [1], [[]], {}, {"a": 1}, {"k": 2}, _DEEP),
)


@dataclass(frozen=True)
class Mutant:
    """Files by their names, and what is left of their configuration, flat; None when a change of
    the bytes of tensors cannot be judged."""

    files: dict[str, bytes]
    what: str
    config: dict[str, Any] | None
    must_refuse: bool = False


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def made(subject: Subject, folder: Path) -> dict[str, bytes]:
    MAKERS[subject.maker](folder)
    return files_of(folder)


def configuration(files: Mapping[str, bytes]) -> dict[str, Any]:
    """All that the files say apart from tensors, by paths with dots; raises ValueError."""
    found: dict[str, Any] = {}
    for name, content in files.items():
        if name.endswith(".json"):
            found |= flat(json.loads(content))
        elif name.endswith(".pt") and not any(one.endswith(".json") for one in files):
            found |= flat(torch.load(io.BytesIO(content), weights_only=True))
    return found


def flat(value: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {at: value}
    found: dict[str, Any] = {}
    for key, one in value.items():
        if not isinstance(one, Tensor):
            found |= flat(one, f"{at}.{key}" if at else str(key))
    return found


def mutate(subject: Subject, files: dict[str, bytes], rng: random.Random, trap: Path) -> Mutant:
    """One change of one file."""
    name = rng.choice(sorted(files))
    content = files[name]
    if name.endswith(".json"):
        change = rng.choice([_json_value, _json_value, _json_value, _json_text])
        new, what = change(content, rng)
    elif rng.random() < 0.3:
        new, what = _bytes(content, rng)
        return Mutant({**files, name: new}, f"{name}: {what}", None)
    else:
        kind = {"npz": _npz, "pt": _torch}.get(name.rpartition(".")[2], _safetensors)
        new, what = kind(content, rng, trap)
    mutated = {**files, name: new}
    try:
        config = configuration(mutated)
    except Exception:  # whatever it is, it is no configuration any more
        config = None
    refuse = what.startswith("!") and what.rpartition(" ")[2] not in subject.unused
    return Mutant(mutated, f"{name}: {what}", config, refuse)


def _json_value(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    root = json.loads(content)
    holders = [(root, key) for key in root]
    for holder, key in holders:
        if isinstance(holder[key], dict):
            holders += [(holder[key], one) for one in holder[key]]
    holder, key = rng.choice(holders)
    action = rng.choice(["replace"] * 6 + ["remove", "add", "twice", "whole"])
    if action == "whole":
        return json.dumps(rng.choice(_POOL)).encode(), "another value in place of all"
    if action == "remove":
        del holder[key]
    elif action == "add":
        holder[rng.choice(["invented", "max_iterations", "input_whitening", "", "\ud800"])] = (
            rng.choice(_POOL)
        )
    elif action == "twice":
        text = json.dumps(root)
        again = f"{json.dumps(key)}: {json.dumps(rng.choice(_POOL))}, {json.dumps(key)}:"
        return text.replace(f"{json.dumps(key)}:", again, 1).encode(), f"! {key} twice"
    else:
        holder[key] = copy.deepcopy(rng.choice(_POOL))
    return json.dumps(root).encode(), f"{action} {key}"


def _json_text(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    action = rng.choice(["flip", "cut", "latin", "digits", "deep", "utf-16", "empty"])
    at = rng.randrange(len(content))
    if action == "flip":
        return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :], "a byte"
    text = {
        "cut": content[:at],
        "latin": content.replace(b":", b": \xe9", 1),
        "digits": content.replace(b": ", b": " + b"9" * 5000, 1),
        "deep": b'{"a":' * 100_000 + content + b"}" * 100_000,
        "utf-16": content.decode().encode("utf-16"),
        "empty": b"",
    }[action]
    return text, f"! {action}"


def _bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    if rng.random() < 0.4:
        return content[: rng.randrange(len(content))], "cut"
    changed = bytearray(content)
    ends = [*range(min(600, len(content))), *range(max(0, len(content) - 600), len(content))]
    for _ in range(rng.randint(1, 8)):
        changed[rng.choice(ends)] = rng.randrange(256)
    return bytes(changed), "bytes"


def _tensor(tensor: Tensor, rng: random.Random) -> tuple[Tensor, str]:
    """Another tensor; `!` before what has to be refused."""
    spoilt = tensor.clone().float()
    if spoilt.numel():
        spoilt.view(-1)[rng.randrange(spoilt.numel())] = rng.choice([float("nan"), -float("inf")])
    changes: list[tuple[Tensor, str]] = [
        (tensor.reshape(-1).repeat(2), "! longer"),
        (tensor[None], "! a dimension more"),
        (tensor.flatten()[:0], "! empty"),
        (tensor.to(torch.complex64), "! complex"),
        (torch.zeros(tensor.shape, dtype=torch.int64) + 1, "! whole numbers"),
        (torch.ones(tensor.shape, dtype=torch.bool), "! truth values"),
        (tensor.double(), "double"),
    ]
    if tensor.ndim == 2:
        changes.append((tensor.reshape(-1), "! flat"))
        if tensor.shape[0] != tensor.shape[1]:
            changes.append((tensor.T.contiguous(), "! turned"))
    if tensor.is_floating_point():
        changes += [(spoilt, "! not finite")] if tensor.ndim else []
    return rng.choice(changes)


def _named(tensors: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str]:
    found = {name: one for name, one in tensors.items() if isinstance(one, Tensor)}
    # What k and the statistics hold is no weight, and is judged by tests of its own.
    weights = [name for name, one in found.items() if one.is_floating_point()]
    name = rng.choice(sorted(weights))
    action = rng.choice(["change"] * 4 + ["remove", "rename", "add"])
    if action == "change":
        tensor, what = _tensor(found[name], rng)
        return {**tensors, name: tensor}, f"{what} {name}"
    if action == "add":
        return {**tensors, "other": torch.ones(3)}, "! other"
    rest = {key: one for key, one in tensors.items() if key != name}
    if action == "rename":
        rest["W_renamed"] = tensors[name]
    return rest, f"! {action} {name}"


def _safetensors(content: bytes, rng: random.Random, trap: Path) -> tuple[bytes, str]:
    tensors, what = _named(dict(load_safetensors(content)), rng)
    return save_safetensors(tensors), what


def _npz(content: bytes, rng: random.Random, trap: Path) -> tuple[bytes, str]:
    with np.load(io.BytesIO(content)) as found:
        arrays: dict[str, Any] = dict(found)
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    action = rng.choice(["tensor"] * 3 + ["swapped", "record", "text", "objects", "long"])
    if action == "tensor":
        plain = {key: torch.from_numpy(value) for key, value in arrays.items()}
        tensors, what = _named(plain, rng)
        arrays = {key: value.numpy() for key, value in tensors.items()}
    else:
        other: dict[str, Any] = {
            "swapped": array.astype(">f4"),
            "record": np.zeros(array.shape, dtype=[("a", "f4")]),
            "text": array.astype("U4"),
            "objects": np.full(array.shape, _Code(trap), dtype=object),
            "long": array.astype(np.longdouble),
        }
        arrays[name] = other[action]
        what = action if action == "swapped" else f"! {action}"
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue(), what


class _Code:
    """Makes a folder when it is unpickled by a reader that runs what it reads."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trap),)


def _torch(content: bytes, rng: random.Random, trap: Path) -> tuple[bytes, str]:
    whole = torch.load(io.BytesIO(content), weights_only=True)
    wrapped = isinstance(whole.get("ae"), dict)
    state: dict[Any, Any] = dict(whole["ae"] if wrapped else whole)
    action = rng.choice(["tensor"] * 5 + ["value"] * 3 + ["key", "code", "sparse", "list", "old"])
    what = action
    options: dict[str, Any] = {}
    if action == "tensor":
        state, what = _named(state, rng)
    elif action == "value":
        plain = [key for key, one in state.items() if not isinstance(one, Tensor)]
        key = rng.choice(plain or sorted(state))
        value = copy.deepcopy(rng.choice(_POOL[:-1]))
        if isinstance(state[key], dict) and rng.random() < 0.7:
            inner = rng.choice(sorted(state[key]))
            state[key] = {**state[key], inner: value}
        elif rng.random() < 0.3:
            del state[key]
        else:
            state[key] = value
        what = f"{'' if plain else '! '}value of {key}"
    elif action == "key":
        state[rng.choice([3, None, (1, 2), 1.5])] = torch.ones(2)
        what = "! a name that is no text"
    elif action == "code":
        state["other"] = _Code(trap)
        what = "! code"
    elif action == "sparse":
        name = rng.choice([key for key, one in state.items() if isinstance(one, Tensor)])
        state[name] = state[name].to_sparse() if state[name].ndim else None
        what = "! sparse"
    elif action == "old":
        options["_use_new_zipfile_serialization"] = False
    final: Any = {**whole, "ae": state} if wrapped else state
    if action == "list":
        final, what = [final, 3], "! a list"
    buffer = io.BytesIO()
    if action == "code" and rng.random() < 0.3:
        return pickle.dumps(final), what
    torch.save(final, buffer, **options)
    return buffer.getvalue(), what


def complaint(
    subject: Subject,
    base: dict[str, Any],
    mutant: Mutant,
    before: tuple[Any, ...],
    after: tuple[Any, ...],
) -> str:
    """Why a mutant must not have been taken as it was; '' when all is well."""
    if mutant.must_refuse:
        return "was taken"
    if mutant.config is None:
        return ""  # bytes of tensors: any weights are weights
    changed = {
        path
        for path in base.keys() | mutant.config.keys()
        if _differ(base.get(path, MISSING), mutant.config.get(path, MISSING))
    }
    shows = False
    for path in changed & subject.keys.keys():
        key, value = subject.keys[path], mutant.config.get(path, MISSING)
        if not key.takes(value):
            return f"{path} = {value!r} was taken"
        if _differ(key.meaning(base.get(path, MISSING)), key.meaning(value)):
            if not key.shows:
                return ""  # such as another architecture of the same tensors
            shows = True
    same = before[0] == after[0] and all(
        one.shape == other.shape and torch.allclose(one, other, atol=1e-4, rtol=1e-4)
        for one, other in zip(before[1:], after[1:], strict=True)
    )
    if shows and same:
        return f"{sorted(changed)} changed nothing"
    if not shows and not same:
        return f"{sorted(changed)} changed what is computed"
    return ""


def _differ(one: Any, other: Any) -> bool:
    if type(one) is bool or type(other) is bool:
        return one is not other
    return one is not other and one != other
