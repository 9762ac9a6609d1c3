"""Points as braille dots, eight to a cell, and what kind of points a cell shows; pure NumPy."""

from dataclasses import dataclass

import numpy as np

from tui.widgets.map.viewport import Viewport

BLANK = -1  # the kind of a cell without points
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.int32)


@dataclass(frozen=True)
class Dots:
    """What a viewport shows: [rows, columns] each."""

    braille: np.ndarray  # the bits of each cell's eight dots
    kinds: np.ndarray  # the kind that colours each cell, or BLANK
    counts: np.ndarray  # points in each cell


def dots(
    x: np.ndarray,
    y: np.ndarray,
    kinds: np.ndarray | None,
    n_kinds: int,
    view: Viewport,
    shape: tuple[int, int],
) -> Dots:
    """The points in view as a picture of `shape` (columns, rows).

    A cell shows the most common of its points' `kinds`, but the last kind, which says nothing, only
    where there is no other. Without `kinds` a cell shows how many points it has, in `n_kinds` equal
    steps of the logarithm.
    """
    columns, rows = shape
    across = np.floor((x - view.left) * (2 * columns / view.width)).astype(np.int64)
    down = np.floor((view.bottom + view.height - y) * (4 * rows / view.height)).astype(np.int64)
    seen = (across >= 0) & (across < 2 * columns) & (down >= 0) & (down < 4 * rows)
    across, down = across[seen], down[seen]
    lit = np.zeros((4 * rows, 2 * columns), dtype=np.int32)
    lit[down, across] = 1
    bits = (lit.reshape(rows, 4, columns, 2) * _BITS[:, None, :]).sum(axis=(1, 3))
    cells = (down >> 2) * columns + (across >> 1)
    counts = np.bincount(cells, minlength=rows * columns)
    if kinds is None:
        found = _crowded(counts, n_kinds)
    else:
        found = _most_common(cells, kinds[seen], n_kinds, rows * columns)
    found = np.where(counts > 0, found, BLANK)
    return Dots(bits, found.reshape(rows, columns), counts.reshape(rows, columns))


def _crowded(counts: np.ndarray, levels: int) -> np.ndarray:
    most = np.log(counts.max(initial=1) + 1e-9)
    share = np.log(np.maximum(counts, 1)) / most if most > 0.1 else np.zeros(len(counts))
    return np.minimum((share * levels).astype(np.int64), levels - 1)


def _most_common(cells: np.ndarray, kinds: np.ndarray, n_kinds: int, n_cells: int) -> np.ndarray:
    found = np.bincount(cells * n_kinds + kinds, minlength=n_cells * n_kinds)
    telling = found.reshape(n_cells, n_kinds)[:, :-1]
    if not telling.shape[1]:
        return np.zeros(n_cells, dtype=np.int64)
    return np.where(telling.any(axis=1), telling.argmax(axis=1), n_kinds - 1)
