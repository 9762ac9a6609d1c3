"""The page of a report: HTML that loads nothing, runs nothing and can be read without styles; pure.

Every text of models, data and people goes through `_safe`; nothing else writes such text.
"""

import math
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from mi_crow.mechanistic.features.records import SCORES, auroc_text, is_telling
from mi_crow.mechanistic.features.report.histogram import histogram_svg
from mi_crow.mechanistic.features.report.style import STYLE
from mi_crow.visible import visible

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import Example, FeatureDetail, FeatureRow, IndexMeta

HEAT_STEPS = 7
_OPEN_EXAMPLES = 12  # the others are folded
_LONGEST_TOKEN = 80


def _safe(text: str) -> str:
    """Foreign text for HTML and its attributes: no tags, no control or bidi characters."""
    return escape(visible(text.replace("\n", "⏎")), quote=True)


def _number(value: float | None) -> str:
    """In three significant digits, which `8.00` keeps."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:#.3g}".removesuffix(".")


def _score(auroc: float | None) -> str:
    return "–" if auroc is None else auroc_text(auroc, 3)


def _share(value: float) -> str:
    return f"{100 * value:.3g}%"


def page_start(meta: "IndexMeta", rows: "Sequence[FeatureRow]") -> str:
    """The head of the page and the table of its features."""
    title = f"{len(rows):,} features of {meta.sae_id}" if len(rows) != 1 else meta.sae_id
    facts = {
        "Model": meta.model_id,
        "Layer": meta.layer,
        "Features": f"{len(rows):,} of {meta.n_features:,}",
        "Indexed": f"{meta.n_tokens:,} tokens of {meta.n_documents:,} documents",
        "Index built": time.strftime("%Y-%m-%d", time.gmtime(meta.built_at)),
    }
    lines = "".join(map(_table_row, rows))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{_safe(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header id="top"><h1>{_safe(title)}</h1>{_facts(facts)}</header>
<main>
<table class="all"><thead><tr><th class="id">Feature</th>
<th class="text">Name, proposed name or top label</th>
<th>Density</th><th class="more">Fires</th><th>Max</th><th class="more">Mean</th>
<th>AUROC</th></tr></thead>
<tbody>{lines}</tbody></table>
"""


def page_end(meta: "IndexMeta") -> str:
    return (
        "</main>\n<footer>Heat and bold numbers show activations; a token is shaded by its share "
        "of the feature&#x27;s maximum. AUROC is that of the label which the feature tells best, "
        "on held-out documents. Written by "
        f"mi-crow from the index of {_safe(meta.sae_id)}.</footer>\n</body>\n</html>\n"
    )


def _table_row(row: "FeatureRow") -> str:
    name = row.meaning or ("" if row.fires else "never fires")
    kind = "name" if row.concept else "muted"
    cells = (
        f"<td>{_share(row.density)}</td>",
        f'<td class="more">{row.fires:,}</td>',
        f"<td>{_number(row.max_act)}</td>",
        f'<td class="more">{_number(row.mean_act)}</td>',
        f"<td>{_score(row.top_auroc)}</td>",
    )
    return (
        f'<tr><td class="id"><a href="#f{row.feature}">#{row.feature}</a></td>'
        f'<td class="text {kind}">{_safe(name)}</td>'
        f"{''.join(cells)}</tr>\n"
    )


def feature_section(
    detail: "FeatureDetail",
    examples: "Sequence[Example]",
    shown: frozenset[int],
    names: Mapping[int, str],
) -> str:
    """One feature. `shown` are the features of the page, which it can link to; `names` says what
    related ones stand for."""
    row = detail.row
    kind = "name" if row.concept else "muted"
    name = f'<span class="{kind}">{_safe(row.meaning)}</span>'
    title = f'<h2><a class="top" href="#top">all features</a>#{row.feature} {name}</h2>'
    logits = _tokens("Promoted tokens", detail.promoted, "up") + _tokens(
        "Suppressed tokens", detail.suppressed, "down"
    )
    nearest = [one[:2] for one in detail.neighbours]
    together = [one[:2] for one in detail.coactivations]
    related = _related("Nearest (cosine)", nearest, shown, names)
    related += _related("Co-active (Jaccard)", together, shown, names)
    return (
        f'<article id="f{row.feature}">{title}{_names(detail)}{_facts(_figures(detail))}'
        f'<div class="body"><div class="texts">{_examples(examples, row.max_act)}</div>'
        f'<div class="side">{_histogram(detail)}{logits}{related}</div></div></article>\n'
    )


def _names(detail: "FeatureDetail") -> str:
    lines = []
    for one in detail.concepts:
        tags = "".join(f'<span class="tag">{_safe(tag)}</span>' for tag in one.tags)
        note = f' <span class="note">{_safe(one.note)}</span>' if one.note else ""
        by = f'<span class="muted"> {_safe(one.source)}, {one.confidence:.2g}</span>'
        lines.append(f'<li><span class="name">{_safe(one.name)}</span>{by}{tags}{note}</li>')
    return f'<ul class="names">{"".join(lines)}</ul>' if lines else ""


def _figures(detail: "FeatureDetail") -> dict[str, str]:
    row = detail.row
    if not row.fires:
        return {"Fires": "never on the indexed tokens"}
    facts = {
        "Fires": f"{row.fires:,} times, on {_share(row.density)} of tokens",
        "Activation": f"max {_number(row.max_act)}, mean {_number(row.mean_act)}, "
        f"spread {_number(detail.std_act)}",
        **_layers(detail),
        "Decoder norm": _number(detail.decoder_norm),
        "Encoder-decoder cosine": _number(detail.encoder_decoder_cosine),
        "Logit effect": f"skew {_number(detail.skew)}, kurtosis {_number(detail.kurtosis)}",
    }
    facts |= _said(detail)
    labels = [f"{one.label} {_score(one.auroc)}" for one in detail.labels if is_telling(one.auroc)]
    return facts | ({"AUROC": ", ".join(labels[:5])} if labels else {})


def _layers(detail: "FeatureDetail") -> dict[str, str]:
    """Of an SAE over several layers the one that it is of, and how much it writes to each."""
    if not detail.several or not detail.layer:
        return {}
    parts = [f"{one.layer} {_number(one.relative)}" for one in detail.written]
    norms = {"Relative decoder norms": ", ".join(parts)} if parts else {}
    return {"Layer": detail.layer, **norms}


def _said(detail: "FeatureDetail") -> dict[str, str]:
    """The name by a chat model and the one without, each with its own scores."""
    told, proposal, facts = detail.explanation, detail.proposal, dict[str, str]()
    if told is not None:
        scores = [
            f"{said} {_score(value)}{told.interval(name)}"
            for name, said in SCORES.items()
            if (value := getattr(told, name)) is not None
        ]
        scores += [f"on {detail.explained_on}"] if detail.explained_on else []
        facts["Explained"] = f"{told.text} ({', '.join([f'by {told.explainer}', *scores])})"
    if proposal is not None and proposal.name:
        score = "not scored" if proposal.score is None else f"AUROC {_score(proposal.score)}"
        facts["Proposed"] = f"{proposal.name} ({proposal.kind}, {score})"
    return facts


def _facts(facts: dict[str, str]) -> str:
    lines = "".join(f"<div><dt>{k}</dt><dd>{_safe(v)}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{lines}</dl>'


def _histogram(detail: "FeatureDetail") -> str:
    drawing = histogram_svg(detail.histogram, detail.edges)
    return f"<section><h3>Activations</h3>{drawing}</section>" if drawing else ""


def _tokens(title: str, tokens: Sequence[tuple[str, float]], kind: str) -> str:
    most = max((abs(value) for _, value in tokens if math.isfinite(value)), default=0.0) or 1.0
    lines = "".join(
        f'<li><code>{_safe(token[:_LONGEST_TOKEN])}</code><span class="track">'
        f'<span class="{kind}" style="width:{100 * min(abs(value) / most, 1):.0f}%"></span></span>'
        f"<span>{value:+.2f}</span></li>"
        for token, value in tokens
        if math.isfinite(value)
    )
    return f'<section><h3>{title}</h3><ol class="tokens">{lines}</ol></section>' if lines else ""


def _related(
    title: str,
    others: Sequence[tuple[int, float]],
    shown: frozenset[int],
    names: Mapping[int, str],
) -> str:
    parts = []
    for feature, value in others:
        name = f"#{feature}"
        link = f'<a href="#f{feature}">{name}</a>' if feature in shown else name
        known = f'<span class="known muted">{_safe(names.get(feature, ""))}</span>'
        parts.append(f"<li>{link} {known} <span>{value:.2f}</span></li>")
    lines = "".join(parts)
    return f'<section><h3>{title}</h3><ul class="related">{lines}</ul></section>' if lines else ""


def _examples(examples: "Sequence[Example]", top: float) -> str:
    if not examples:
        return ""
    lines = [_example(example, top) for example in examples]
    folded = "".join(lines[_OPEN_EXAMPLES:])
    more = f"<details><summary>{len(lines) - _OPEN_EXAMPLES} more</summary>{folded}</details>"
    first = "".join(lines[:_OPEN_EXAMPLES])
    return f"<h3>Top activations</h3>{first}{more if folded else ''}"


def _example(example: "Example", top: float) -> str:
    peak = max(range(len(example.acts)), key=example.acts.__getitem__, default=-1)
    words = []
    for place, (token, value) in enumerate(zip(example.tokens, example.acts, strict=False)):
        step, bare = heat_step(value, top), token.lstrip(" ")
        if not step or not bare:
            words.append(_safe(token))
            continue
        bold = " peak" if place == peak else ""
        space = token[: len(token) - len(bare)]  # left plain, so that words stay words
        heat = f'<span class="h{step}{bold}" title="{_number(value)}">{_safe(bare)}</span>'
        words.append(space + heat)
    label = f'<span class="muted">{_safe(example.label)}</span>' if example.label else ""
    return (
        f'<div class="example"><div class="value"><b>{_number(example.activation)}</b>{label}</div>'
        f'<p dir="auto">{"".join(words)}</p></div>'
    )


def heat_step(value: float, top: float) -> int:
    """0 for nothing, else 1 to HEAT_STEPS, which `top` has."""
    if not (value > 0 and top > 0):  # also for values that are no numbers
        return 0
    return min(max(math.ceil(min(value / top, 1.0) * HEAT_STEPS), 1), HEAT_STEPS)
