"""A histogram of activations as inline SVG, heights on a logarithmic scale; pure."""

import math
from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 120, 40, 18, 8


def histogram_svg(counts: Sequence[int], edges: Sequence[float]) -> str:
    """Bars from left to right, with the greatest count and the range of activations at the axes;
    empty where nothing fired."""
    end = max((n for n, count in enumerate(counts, start=1) if count > 0), default=0)
    if not end or len(edges) <= end:
        return ""
    counts, top = counts[:end], max(counts)
    room, high = _WIDTH - _LEFT - 4, _HEIGHT - _TOP - _BOTTOM
    step, base = room / end, _HEIGHT - _BOTTOM
    bars = []
    for place, count in enumerate(counts):
        height = high * math.log1p(count) / math.log1p(top) if count > 0 else 0
        title = f"{edges[place]:.3g} to {edges[place + 1]:.3g}: {count:,} tokens"
        bars.append(
            f'<rect x="{_LEFT + place * step:.1f}" y="{base - height:.1f}" '
            f'width="{max(step - 1, 0.5):.1f}" height="{height:.1f}"><title>{title}</title></rect>'
        )
    ticks = [
        (_LEFT + room * share, f"{edges[round(end * share)]:.3g}", anchor)
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    ]
    labels = [
        f'<text x="{x:.0f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{text}</text>'
        for x, text, anchor in ticks
    ]
    powers = range(int(math.log10(top)) + 1)
    for power in (p for p in powers if p in (powers[0], powers[-1], len(powers) // 2)):
        y = base - high * math.log1p(10**power) / math.log1p(top)
        labels.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 4}" y1="{y:.1f}" y2="{y:.1f}"/>')
        labels.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power:,}</text>'
        )
    what = "Histogram of its activations; number of tokens on a logarithmic scale"
    return (
        f'<svg class="histogram" fill="currentColor" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{what}">'
        f"{''.join(labels)}{''.join(bars)}</svg>"
    )
