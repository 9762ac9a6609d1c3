"""Where the seconds of an index job go: each stage's own, without those of the stages inside it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from mi_crow.mechanistic.features import build, codes, encode_pass, feature_tables
from mi_crow.mechanistic.features.write import IndexWriter
from mi_crow.mechanistic.sae.topk import TopKSae

# The streaming pass; what is not named here comes from the weights, or is text and file.
PASS = (
    "product and top-k",
    "reading, outliers and handing over",
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
    "columns of tables",
)
# Stage -> where its work stands: (module or class, name).
_PLACES: tuple[tuple[str, Any, str], ...] = (
    ("product and top-k", TopKSae, "encode_sparse"),
    ("reading, outliers and handing over", encode_pass.EncodePass, "run"),
    ("sorting codes", encode_pass, "make_chunk"),
    ("features of documents", encode_pass, "strongest_features"),
    ("gathering codes by feature", codes, "gather_block"),
    ("counts and moments", feature_tables, "moments"),
    ("histograms", feature_tables.HistogramBins, "histograms"),
    ("pooling over documents", feature_tables, "pool"),
    ("AUROC", feature_tables, "label_scores"),
    ("choosing examples", feature_tables, "choose"),
    ("windows", feature_tables, "with_windows"),
    ("co-firing", feature_tables, "coactivations"),
    ("columns of tables", feature_tables.FeatureTables, "write"),
    ("texts of tokens", encode_pass, "document_token_texts"),
    ("DuckDB", IndexWriter, "append"),
    ("directions, neighbours and map", build, "write_directions"),
    ("logits", build, "write_logits"),
)


class Stages:
    """Seconds by stage; `whole` is everything, the stages or not."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.whole = 0.0
        self._inside: list[float] = []  # seconds of the stages within each running one

    def total(self, names: tuple[str, ...]) -> float:
        return sum(self.seconds.get(name, 0.0) for name in names)

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                own = took - self._inside.pop()
                self.seconds[name] = self.seconds.get(name, 0.0) + own
                if self._inside:
                    self._inside[-1] += took

        return run


@contextmanager
def index_stages() -> Iterator[Stages]:
    """Times every index job in the block."""
    stages = Stages()
    with ExitStack() as stack:
        for name, owner, attribute in _PLACES:
            work = stages.timed(name, getattr(owner, attribute))
            stack.enter_context(patch.object(owner, attribute, work))
        began = time.perf_counter()
        yield stages
        stages.whole = time.perf_counter() - began
