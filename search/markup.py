"""HTML that is well formed and escaped by construction, figures for people, and the looks of a report's page."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from remedy.spaces.outcome import Outcome
from remedy.spaces.printable import printable

# The colours are Okabe and Ito's, darkened where text or a thin line has to be read on white.
_LIGHT = """
:root{--page:#fff;--text:#1d2126;--soft:#59626c;--rule:#d9dee3;--card:#f4f6f8;--ghost:#e3e7eb;--link:#0063a0;
--base:#b34700;--fix:#0072b2;--fix2:#00795a;--fix3:#9a3d86;--converged:#009e73;--collapsed:#d55e00;--missed:#e69f00;--stopped:#8a929a;--failed:#cc79a7;
--inapplicable:#56b4e9;--lost:#1d2126}
"""
_DARK = """:root{color-scheme:light dark}
@media screen and (prefers-color-scheme:dark){:root{--page:#14171a;--text:#e4e8ec;--soft:#a3adb7;--rule:#363d44;
--card:#1d2226;--ghost:#31383f;--link:#7cc4f0;--base:#f0a050;--fix:#56b4e9;--fix2:#3cc79f;--fix3:#e29ad0;--lost:#e4e8ec}}
"""
_RULES = """*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1100px;margin:0 auto;padding:28px 24px 48px}
a{color:var(--link)}
h1{font-size:1.5rem;line-height:1.3;margin:.2em 0 .4em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2em 0 .5em;padding-top:.7em;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.4em 0 .4em}
p{margin:.4em 0;max-width:880px;overflow-wrap:anywhere}
ul{margin:.3em 0;padding-left:1.2em;overflow-wrap:anywhere}
.soft,figcaption{color:var(--soft);font-size:.875rem}
code,pre{font:.875em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--card);padding:.7em 1em;border-radius:6px;white-space:pre-wrap;margin:.4em 0}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:1.2em 0}
dl div{background:var(--card);border-radius:8px;padding:.6em .9em}
dt{color:var(--soft);font-size:.8rem}
dd{margin:0;font-size:1.25rem;font-weight:600}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;margin:.6em 0;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.35em .9em .35em 0;border-bottom:1px solid var(--rule)}
th{font-weight:600;color:var(--soft);font-size:.8rem;vertical-align:bottom}
.lead td{border-bottom:0;font-weight:600;padding-bottom:0}
td code{overflow-wrap:normal}
.more td{padding-bottom:.9em}
.first td{border-top:2px solid var(--rule)}
.close{white-space:nowrap}
.seed{display:inline-block;min-width:2.6em;margin-right:.6em;text-align:center}
.t-converged{color:var(--converged)}
.t-collapsed{color:var(--collapsed)}
.bars{display:grid;grid-template-columns:minmax(60px,200px) auto;gap:.6em;align-items:center}
.bars .bar{display:block;height:.7em;background:var(--stopped);border-radius:2px}
details{margin:.8em 0}
summary{cursor:pointer;color:var(--link)}
.key{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.4em}
.legend .key:not(:first-child){margin-left:1.4em}
figure{margin:1em 0 1.8em}
figcaption{margin-top:.4em}
svg{display:block;width:100%;height:auto}
figure svg{min-width:780px}
svg text{font:13px system-ui,"Segoe UI",Roboto,sans-serif;fill:var(--text)}
svg .head{fill:var(--soft)}
svg .over{paint-order:stroke;stroke:var(--page);stroke-width:4px}
.grid{stroke:var(--rule)}
.axis{stroke:var(--soft)}
.goal{stroke:var(--text);stroke-dasharray:2 4;stroke-width:1.5}
.base{stroke:var(--base);fill:none}
.fix{stroke:var(--fix);fill:none}
.fix2{stroke:var(--fix2);fill:none}
.fix3{stroke:var(--fix3);fill:none}
.thin{opacity:.5}
.mean{stroke-width:2.6}
.base.mean{stroke-dasharray:8 4}
.fix2.mean{stroke-dasharray:2 3}
.fix3.mean{stroke-dasharray:12 3 2 3}
.stroke{stroke-width:2.6}
.cross{stroke-width:2.4}
.band{stroke:none;opacity:.14}
.strong{opacity:1;stroke-width:1.6}
.span{fill:var(--collapsed);opacity:.13}
.edge{stroke:var(--collapsed);stroke-dasharray:5 3}
.base.band,.base.mark{fill:var(--base)}
.fix.band,.fix.mark,.dot,.tile{fill:var(--fix)}
.fix2.band,.fix2.mark{fill:var(--fix2)}
.fix3.band,.fix3.mark{fill:var(--fix3)}
circle.mark{stroke:none;opacity:.75}
.hollow{fill:none;stroke:var(--base);stroke-width:2}
.ground{fill:var(--page)}
svg .small{font-size:11px}
svg .group{font-weight:600}
.reach{stroke:var(--fix);stroke-width:2}
.ghost{fill:var(--ghost)}
OUTCOMES
@media print{body{font-size:12px}main{max-width:none;padding:0}h2,h3{break-after:avoid}
figure,tr,pre,dl{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
""".replace("OUTCOMES", "\n".join(f".o-{o}{{fill:var(--{o});background:var(--{o})}}" for o in Outcome))
STYLE = _LIGHT + _DARK + _RULES
PLAIN = _LIGHT + _RULES
"""The same for a figure that stands alone: MLflow puts it on white, however dark its page is."""


def safe(text: object) -> str:
    """Make any text harmless in HTML, in an attribute too: no markup, no control characters."""
    return html.escape(printable(text), quote=True)


class Html(str):
    """Text that is markup already; every other text is escaped."""

    __slots__ = ()


def tag(name: str, *inside: object, **attributes: object) -> Html:
    """Build one element. What is inside is escaped unless it was built here; `look` is its class."""
    named = {"class" if key == "look" else key: value for key, value in attributes.items() if value}
    said = "".join(f' {key}="{safe(value)}"' for key, value in named.items())
    return Html(f"<{name}{said}>{join(inside)}</{name}>")


def join(parts: Iterable[object]) -> Html:
    """Put parts one after the other, escaped unless they were built here."""
    return Html("".join(part if isinstance(part, Html) else safe(part) for part in parts))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """Build a table that scrolls by itself where the page is too narrow."""
    return wide(head, (tag("tr", *(tag("td", cell) for cell in row)) for row in rows))


def wide(head: Sequence[str], rows: Iterable[Html]) -> Html:
    """Build the same from rows that are elements already."""
    names = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    return tag("div", tag("table", names, tag("tbody", *rows)), look="wide")


def number(value: object) -> str:
    """Return a figure for people; `-` for none."""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)


def percent(share: float | None) -> str:
    """Return a share for people."""
    return "-" if share is None else f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count(found: int, one: str, many: str) -> str:
    """Return `1 run`, `5 runs`."""
    return f"{found:,} {one if found == 1 else many}"
