"""Many texts to token ids while the model works on others."""

import os
import queue
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from mi_crow.background import read_ahead
from mi_crow.datasets.texts import TokenText
from mi_crow.errors import MiCrowError
from mi_crow.language_model.capture.tokenizer_process import TEXTS, token_batch

Key = TypeVar("Key")
_COMMAND = (sys.executable, "-m", "mi_crow.language_model.capture.tokenizer_process")
_BATCHES_AHEAD = 1


class Tokens(NamedTuple):
    """One text as the tokenizer parts it, without special tokens added."""

    ids: np.ndarray  # [n] int32
    starts: np.ndarray | None  # [n] int32, characters; None where they were not asked for
    ends: np.ndarray | None


def tokenized(
    tokenizer: Any,
    batches: Iterable[tuple[Key, Sequence[str]]],
    offsets_above: int | None,
    *,
    beside: bool,
) -> Generator[tuple[Key, list[Tokens]], None, None]:
    """Token ids of each batch of texts, in order, each with the key it came with.

    Texts of more than `offsets_above` tokens come with their places in the text. `beside` works
    in a process of its own, for tokenizers that have a fast form; else in the calling thread.
    Texts that came as token ids (all or none of a data set do) keep those.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        return _given([])
    batches = chain([first], batches)
    if any(isinstance(text, TokenText) for text in first[1]):
        return _given(batches)
    if beside and getattr(tokenizer, "is_fast", False):
        return _beside(tokenizer, batches, offsets_above)
    return _here(tokenizer, batches, offsets_above)


def _given(
    batches: Iterable[tuple[Key, Sequence[str]]],
) -> Generator[tuple[Key, list[Tokens]], None, None]:
    for key, texts in batches:
        yield key, [Tokens(text.ids, None, None) for text in texts if isinstance(text, TokenText)]


def _here(
    tokenizer: Any, batches: Iterable[tuple[Key, Sequence[str]]], offsets_above: int | None
) -> Generator[tuple[Key, list[Tokens]], None, None]:
    wants_places = offsets_above is not None and getattr(tokenizer, "is_fast", False)
    for key, texts in batches:
        found = tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_offsets_mapping=wants_places,
            verbose=False,  # long texts are cut later
        )
        ids = found["input_ids"]
        places = [None] * len(ids)
        if wants_places:
            places = [
                one if len(one) > (offsets_above or 0) else None for one in found["offset_mapping"]
            ]
        yield key, _unpacked(token_batch(ids, places))


def _unpacked(batch: pa.RecordBatch) -> list[Tokens]:
    columns = []
    for column in batch.columns:
        ends, values = column.offsets.to_numpy(), column.values.to_numpy()
        columns.append((values, ends, column.is_valid().to_numpy(zero_copy_only=False)))

    def item(column: int, number: int) -> np.ndarray | None:
        values, ends, valid = columns[column]
        return values[ends[number] : ends[number + 1]] if valid[number] else None

    return [
        Tokens(item(0, number), item(1, number), item(2, number))  # type: ignore[arg-type]
        for number in range(batch.num_rows)
    ]


def _beside(
    tokenizer: Any, batches: Iterable[tuple[Key, Sequence[str]]], offsets_above: int | None
) -> Generator[tuple[Key, list[Tokens]], None, None]:
    """The same by a child process: a thread reads and feeds texts, this one takes the ids."""
    limit = -1 if offsets_above is None else offsets_above
    child = subprocess.Popen(
        [*_COMMAND, str(limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "true"},
    )
    keys: queue.Queue[Key] = queue.Queue()
    fed = read_ahead(
        _fed(child, tokenizer.backend_tokenizer.to_str(), batches, keys), _BATCHES_AHEAD, "texts"
    )
    try:
        results: pa.RecordBatchStreamReader | None = None
        for _ in fed:
            if results is None:
                assert child.stdout is not None
                results = pa.ipc.open_stream(child.stdout)
            found = results.read_next_batch()
            yield keys.get_nowait(), _unpacked(found)
    except (pa.ArrowException, BrokenPipeError, StopIteration) as error:
        child.kill()
        raise MiCrowError(
            f"the tokenizing process ended unexpectedly (exit code {child.wait()})",
            hint="resume the job; its log may say more",
        ) from error
    finally:
        child.kill()  # first, so that the feeding thread is not left in the middle of a write
        fed.close()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        child.wait()


def _fed(
    child: "subprocess.Popen[bytes]",
    description: str,
    batches: Iterable[tuple[Key, Sequence[str]]],
    keys: "queue.Queue[Key]",
) -> Iterator[None]:
    """Feeds the child one batch a step, its key put aside first."""
    assert child.stdin is not None
    data = description.encode()
    child.stdin.write(len(data).to_bytes(8, "big") + data)
    with pa.ipc.new_stream(child.stdin, TEXTS) as writer:
        child.stdin.flush()
        for key, texts in batches:
            keys.put(key)
            writer.write_batch(pa.record_batch([pa.array(texts, TEXTS.field(0).type)], TEXTS))
            child.stdin.flush()
            yield
