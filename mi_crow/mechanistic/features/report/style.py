"""The style of a report: ink on paper by day, the reverse by night, one column on a narrow screen.

Texts reach a contrast of 4.5:1 on every step of the heat ramp. Features out of sight are not laid
out before they are scrolled to: of 300 Chromium shows the first after a fifth of the time.
"""

_LIGHT = {
    "ground": "#fbfaf7",
    "panel": "#f2f0ea",
    "ink": "#22282e",
    "muted": "#5c666f",
    "rule": "#dcd8cd",
    "link": "#175c76",
    "name": "#874f08",
    "up": "#3c7a3a",
    "down": "#b03a38",
    "bar": "#5c94a8",
}
_DARK = {
    "ground": "#101418",
    "panel": "#191f25",
    "ink": "#d6dbe0",
    "muted": "#929da8",
    "rule": "#2c343d",
    "link": "#7fb6cc",
    "name": "#e2b363",
    "up": "#8fbf8a",
    "down": "#e58a88",
    "bar": "#4f8196",
}
_LIGHT_HEAT = ("#fdf0d5", "#fbe3b4", "#f8d38c", "#f3bf62", "#eda93d", "#e38f1d", "#d97b0b")
_DARK_HEAT = ("#2a2413", "#3d3115", "#544017", "#6d5119", "#87621a", "#a5751b", "#e2a83c")
_LIGHT_TEXTS = ("#22282e",) * 5 + ("#14181b",) * 2
_DARK_TEXTS = ("#e4e8eb",) * 4 + ("#ffffff", "#0b0e11", "#0b0e11")


def _variables(colours: dict[str, str], heat: tuple[str, ...], texts: tuple[str, ...]) -> str:
    named = {f"--{name}": colour for name, colour in colours.items()}
    for step, (ground, text) in enumerate(zip(heat, texts, strict=True), start=1):
        named |= {f"--h{step}": ground, f"--t{step}": text}
    return "".join(f"{name}:{colour};" for name, colour in named.items())


STYLE = (
    f":root{{{_variables(_LIGHT, _LIGHT_HEAT, _LIGHT_TEXTS)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(_DARK, _DARK_HEAT, _DARK_TEXTS)}}}}}"
    + "".join(
        f".h{n}{{background:var(--h{n});color:var(--t{n})}}" for n in range(1, len(_LIGHT_HEAT) + 1)
    )
    + """
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:2rem 1.25rem 4rem;background:var(--ground);
color:var(--ink);font:16px/1.55 ui-sans-serif,system-ui,sans-serif}
h1{font-size:1.7rem;margin:0 0 .75rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:0 0 .5rem;color:var(--link);overflow-wrap:anywhere}
h2 span,.name{color:var(--name)}h2 .muted{font-weight:400}
h2 .top{float:right;margin-left:1rem;font-size:.8rem;font-weight:400}
h3{font-size:.8rem;margin:0 0 .4rem;color:var(--muted);font-weight:600;letter-spacing:.02em}
a{color:var(--link)}
.muted,h2 .muted,dt,footer{color:var(--muted)}
.facts{display:flex;flex-wrap:wrap;gap:.35rem 1.75rem;margin:0 0 1rem}
.facts dt{font-size:.8rem}.facts dd{margin:0;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;margin:1.5rem 0 2.5rem;font-variant-numeric:tabular-nums}
td,th{padding:.3rem .6rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{font-size:.8rem;color:var(--muted);font-weight:600}
.id{text-align:left}
.text{text-align:left;white-space:normal;overflow-wrap:break-word;min-width:7rem;max-width:38rem;
width:50%}
article{border-top:2px solid var(--rule);padding:1.5rem 0 2rem;
content-visibility:auto;contain-intrinsic-size:auto 75rem}
.body{display:flex;gap:2.5rem;align-items:flex-start}
.texts{flex:1 1 0;min-width:0}.side{flex:0 0 23rem}
.side section{margin-bottom:1.4rem}
.names{list-style:none;margin:0 0 .6rem;padding:0}
.names .muted{font-size:.85rem}
.tag{background:var(--panel);border:1px solid var(--rule);border-radius:.3rem;
padding:0 .4rem;margin-left:.5rem;font-size:.85rem}
.note{margin-left:.5rem}
.example{display:flex;gap:.75rem;padding:.45rem 0;
border-bottom:1px solid var(--rule)}
.example p{flex:1 1 0;min-width:0;margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.value{flex:0 0 5.5rem;font-variant-numeric:tabular-nums}.value span{display:block;font-size:.8rem;
overflow-wrap:anywhere}
.peak{font-weight:700;text-decoration:underline}
.example span[class^=h]{border-radius:.15rem}
summary{cursor:pointer;color:var(--link);padding:.6rem 0}
.histogram{width:100%;height:auto;display:block}
.histogram rect{fill:var(--bar)}.histogram text{fill:var(--muted);font-size:11px}
.histogram line{stroke:var(--rule)}
.tokens,.related{list-style:none;margin:0;padding:0}
.tokens li{display:flex;gap:.6rem;align-items:center}
.tokens .track{flex:0 0 7rem}.tokens li>span:last-child{flex:0 0 3.6rem}
.tokens code{flex:1 1 0;min-width:0;white-space:pre;overflow:hidden;text-overflow:ellipsis}
.tokens span{text-align:right;font-variant-numeric:tabular-nums}
.track{background:var(--panel);height:.6rem}
.track span{display:block;height:100%}.up{background:var(--up)}.down{background:var(--down)}
.related li{display:flex;gap:.6rem;font-variant-numeric:tabular-nums}
.related .known{flex:1 1 0;min-width:0;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
footer{border-top:2px solid var(--rule);padding-top:1rem;font-size:.85rem}
@media (max-width:60rem){.body{display:block}.side{margin-top:1.5rem}}
@media (max-width:40rem){body{padding:1rem .9rem 3rem}.all .more{display:none}
.all td,.all th{padding:.3rem .25rem}.example{display:block}.value{display:flex;gap:.6rem}}
@media print{article{content-visibility:visible}
.example,section{break-inside:avoid-page}body{max-width:none}.body{display:block}}
"""
)
