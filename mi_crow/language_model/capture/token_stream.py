"""Tokenizing many texts while the model runs on others."""

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


class TokenizedText(NamedTuple):
    """One text's tokens, without special tokens added."""

    ids: np.ndarray  # [n] int32
    starts: np.ndarray | None  # [n] int32, in characters; None where not asked for
    ends: np.ndarray | None


def tokenized(
    tokenizer: Any,
    batches: Iterable[tuple[Key, Sequence[str]]],
    offsets_above: int | None,
    *,
    own_process: bool,
) -> Generator[tuple[Key, list[TokenizedText]], None, None]:
    """Token ids of each batch of texts, in order, each with the key it came with.

    Texts of more than `offsets_above` tokens come with each token's offsets. `own_process` uses a
    child process if the tokenizer has a fast form; otherwise the calling thread does the work.
    Texts that came as token ids (all or none of a data set do) keep those.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        return _already_ids([])
    batches = chain([first], batches)
    if any(isinstance(text, TokenText) for text in first[1]):
        return _already_ids(batches)
    if own_process and getattr(tokenizer, "is_fast", False):
        return _in_child(tokenizer, batches, offsets_above)
    return _in_thread(tokenizer, batches, offsets_above)


def _already_ids(
    batches: Iterable[tuple[Key, Sequence[str]]],
) -> Generator[tuple[Key, list[TokenizedText]], None, None]:
    for key, texts in batches:
        yield (
            key,
            [TokenizedText(one.ids, None, None) for one in texts if isinstance(one, TokenText)],
        )


def _in_thread(
    tokenizer: Any, batches: Iterable[tuple[Key, Sequence[str]]], offsets_above: int | None
) -> Generator[tuple[Key, list[TokenizedText]], None, None]:
    wants_offsets = offsets_above is not None and getattr(tokenizer, "is_fast", False)
    for key, texts in batches:
        found = tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_offsets_mapping=wants_offsets,
            verbose=False,  # long texts are cut later
        )
        ids = found["input_ids"]
        offsets = [None] * len(ids)
        if wants_offsets:
            offsets = [
                one if len(one) > (offsets_above or 0) else None for one in found["offset_mapping"]
            ]
        yield key, _unpacked(token_batch(ids, offsets))


def _unpacked(batch: pa.RecordBatch) -> list[TokenizedText]:
    columns = []
    for column in batch.columns:
        ends, values = column.offsets.to_numpy(), column.values.to_numpy()
        columns.append((values, ends, column.is_valid().to_numpy(zero_copy_only=False)))

    def item(column: int, number: int) -> np.ndarray | None:
        values, ends, valid = columns[column]
        return values[ends[number] : ends[number + 1]] if valid[number] else None

    return [
        TokenizedText(item(0, number), item(1, number), item(2, number))  # type: ignore[arg-type]
        for number in range(batch.num_rows)
    ]


def _in_child(
    tokenizer: Any, batches: Iterable[tuple[Key, Sequence[str]]], offsets_above: int | None
) -> Generator[tuple[Key, list[TokenizedText]], None, None]:
    """Tokenizes in a child process: a thread reads and feeds texts, this one takes the ids."""
    limit = -1 if offsets_above is None else offsets_above
    child = subprocess.Popen(
        [*_COMMAND, str(limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "true"},
    )
    keys: queue.Queue[Key] = queue.Queue()
    fed = read_ahead(
        _feed(child, tokenizer.backend_tokenizer.to_str(), batches, keys), _BATCHES_AHEAD, "texts"
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


def _feed(
    child: "subprocess.Popen[bytes]",
    description: str,
    batches: Iterable[tuple[Key, Sequence[str]]],
    keys: "queue.Queue[Key]",
) -> Iterator[None]:
    """Feeds the child one batch per step, after queueing its key."""
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
