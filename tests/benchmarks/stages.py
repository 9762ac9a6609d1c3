"""Where the seconds of an index job go: each stage's own, without those of the stages inside it.

Stages in several threads at once add up to more than passes on the clock.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from mi_crow.mechanistic.features.index import build, encode_pass
from mi_crow.mechanistic.features.index.tables import feature_tables
from mi_crow.mechanistic.features.index.write import IndexWriter
from mi_crow.mechanistic.sae.rules.topk import TopKSae

# The streaming pass; what is not named here comes from the weights, or is text and file.
PASS = (
    "product and top-k",
    "reading and outliers",
    "handing over, waiting for threads",
    "sorting codes",
    "features of documents",
    "gathering codes by feature",
    "counts and moments",
    "histograms",
    "pooling over documents",
    "AUROC",
    "choosing examples",
    "windows",
    "co-firing",
    "columns of tables, waiting for threads",
)
# Stage -> where its work stands: (module or class, name).
_PLACES: tuple[tuple[str, Any, str], ...] = (
    ("product and top-k", TopKSae, "encode_entries"),
    ("handing over, waiting for threads", encode_pass.EncodePass, "run"),
    ("reading and outliers", encode_pass.EncodePass, "_tokens"),
    ("sorting codes", encode_pass, "make_chunk"),
    ("features of documents", encode_pass, "strongest_features"),
    ("gathering codes by feature", feature_tables, "gather_block"),
    ("counts and moments", feature_tables, "moments"),
    ("histograms", feature_tables.HistogramBins, "histograms"),
    ("pooling over documents", feature_tables, "pool"),
    ("AUROC", feature_tables, "label_scores"),
    ("choosing examples", feature_tables, "choose"),
    ("windows", feature_tables, "with_windows"),
    ("co-firing", feature_tables, "coactivations"),
    ("columns of tables, waiting for threads", feature_tables.FeatureTables, "write"),
    ("texts of tokens", encode_pass, "document_token_texts"),
    ("DuckDB", IndexWriter, "append"),
    ("directions, neighbours and map", build, "write_directions"),
    ("logits", build, "write_logits"),
)


# The stages that hold the pass, when nothing is written.
_HOLDING = ("handing over, waiting for threads", "columns of tables, waiting for threads")


class Stages:
    """Seconds by stage; `whole` is everything, the stages or not, and `streaming` the pass of a job
    that writes nothing."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.whole = 0.0
        self.streaming = 0.0
        self._of_thread = threading.local()
        self._lock = threading.Lock()

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def run(*args: Any, **kwargs: Any) -> Any:
            inside = self._inside()
            inside.append(0.0)
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                own = took - inside.pop()
                if inside:
                    inside[-1] += took
                with self._lock:
                    self.seconds[name] = self.seconds.get(name, 0.0) + own
                    if name in _HOLDING:
                        self.streaming += took

        return run

    def _inside(self) -> list[float]:
        """Seconds of the stages within each that runs in this thread."""
        if not hasattr(self._of_thread, "inside"):
            self._of_thread.inside = []
        return self._of_thread.inside


@contextmanager
def index_stages(writing: bool = True) -> Iterator[Stages]:
    """Times every index job in the block. Without `writing` its tables stay empty and its tokens
    have no texts: what threads work out meanwhile would look like no time at all."""
    stages = Stages()
    with ExitStack() as stack:
        if not writing:
            stack.enter_context(patch.object(IndexWriter, "append", _nothing))
            stack.enter_context(patch.object(encode_pass, "document_token_texts", _no_texts))
        for name, owner, attribute in _PLACES:
            work = stages.timed(name, getattr(owner, attribute))
            stack.enter_context(patch.object(owner, attribute, work))
        began = time.perf_counter()
        yield stages
        stages.whole = time.perf_counter() - began


def _no_texts(tokenizer: Any, texts: Sequence[str], token_ids: Any) -> list[list[str]]:
    return [[] for _ in texts]


def _nothing(writer: IndexWriter, table: str, columns: Any) -> None:
    """Writes no rows."""
