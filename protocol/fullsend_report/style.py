"""The style sheet of the page. Colours never stand alone: each state has a shape, or a word, too.

System fonts, so nothing is loaded. The contrast of text is at least 4.5 : 1, that of shapes 3 : 1, in both schemes;
tests/browser measures it.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--bg:#f6f7f8;--card:#fff;--ink:#1b1f24;--dim:#57606a;--line:#d9dde2;--soft:#eef0f2;
--ok:#1f7a4d;--okbg:#e7f4ec;--warn:#8f5000;--warnbg:#fdf3e1;--crit:#b3261e;--critbg:#fdecea;--link:#0b5cad;--dot:#7d8691}
@media screen and (prefers-color-scheme:dark){:root{--bg:#111418;--card:#191d23;--ink:#e6e9ed;--dim:#a2abb6;
--line:#313842;--soft:#222831;--ok:#56c98d;--okbg:#14291f;--warn:#f0b254;--warnbg:#2e2412;--crit:#ff8a80;--critbg:#351c1b;
--link:#8ab8ff;--dot:#7d8794}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Liberation Sans",sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
header,main,footer{max-width:1120px;margin:0 auto;padding:0 16px}
header{padding-top:28px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:18px;line-height:1.3;margin:0}
h3{font-size:13px;font-weight:600;margin:0 0 8px;color:var(--dim)}
p{margin:0}
a{color:var(--link)}
.dim,small,.when{color:var(--dim);font-size:13px}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:4px}
.skip{position:absolute;left:-9999px}
.skip:focus{left:16px;top:8px;background:var(--card);padding:4px 10px}
.verdict{display:flex;gap:16px;align-items:flex-start;margin:20px 0 16px;padding:18px 20px;border-radius:12px;
border:1px solid;background:var(--okbg);border-color:var(--ok)}
.verdict svg{flex:none;width:36px;height:36px;fill:none;stroke:var(--ok);stroke-width:3;stroke-linecap:round;
stroke-linejoin:round}
.verdict h2{font-size:21px;color:var(--ok)}
.verdict.warning{background:var(--warnbg);border-color:var(--warn)}
.verdict.warning h2{color:var(--warn)}.verdict.warning svg{stroke:var(--warn)}
.verdict.critical{background:var(--critbg);border-color:var(--crit)}
.verdict.critical h2{color:var(--crit)}.verdict.critical svg{stroke:var(--crit)}
.alarms{list-style:none;margin:0 0 16px;padding:0;
border:1px solid var(--line);border-radius:12px;background:var(--card)}
.alarms li{display:grid;grid-template-columns:84px 1fr;gap:2px 12px;padding:11px 16px;border-top:1px solid var(--line)}
.alarms li:first-child{border-top:0}
.alarms .who{font-weight:600}
.alarms p,.alarms .when{grid-column:2}
.level{font-size:12px;font-weight:700;line-height:22px;height:22px;text-align:center;border-radius:6px;
border:1px solid currentColor;white-space:nowrap;padding:0 6px}
.level.critical{color:var(--crit);background:var(--critbg)}
.level.warning{color:var(--warn);background:var(--warnbg)}
.level.ok{color:var(--ok);background:var(--okbg)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;margin:0 0 16px;
background:var(--line);border:1px solid var(--line);border-radius:12px;overflow:hidden}
.tiles div{background:var(--card);padding:12px 16px}
.tiles dt{font-size:13px;color:var(--dim)}
.tiles dd{margin:0;font-size:20px;font-weight:600;line-height:1.3}
.tiles dd small{display:block;font-weight:400;line-height:1.35}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px;margin:0 0 16px}
.card h2{margin-bottom:8px}
.bar{display:block;width:100%;height:14px;border-radius:4px}
.bar .free{fill:var(--soft)}.bar .used{fill:var(--dim)}.bar .kept{fill:none;stroke:var(--dim);stroke-width:1.5}
.room p{margin-top:8px}
.legend{list-style:none;margin:0 0 20px;padding:0;display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;
color:var(--dim)}
.legend li{display:flex;align-items:center;gap:6px}
.legend svg{flex:none}
.host{margin:0 0 16px;background:var(--card);border:1px solid var(--line);border-radius:12px}
summary{cursor:pointer;list-style:none}
summary::-webkit-details-marker{display:none}
summary::before{content:"";width:7px;height:7px;border:solid var(--dim);border-width:0 2px 2px 0;
transform:rotate(-45deg);flex:none;margin:0 3px 0 1px}
details[open]>summary::before{transform:rotate(45deg)}
.host>summary{display:flex;flex-wrap:wrap;align-items:center;gap:4px 12px;padding:14px 16px}
.host>summary .dim{margin-left:auto;text-align:right}
.host>.about{padding:0 16px 12px}
.ds{border-top:1px solid var(--line)}
.ds>summary{display:grid;grid-template-columns:auto minmax(0,1fr) auto 92px 92px 76px;align-items:center;gap:4px 12px;
padding:9px 16px}
.ds>summary:hover,.host>summary:hover{background:var(--soft)}
.ds .name{font-weight:600}
.ds .num{text-align:right;white-space:nowrap;font-size:14px}
.ds>div{padding:6px 16px 18px}
.panels{display:grid;grid-template-columns:224px minmax(0,1fr) minmax(0,1fr);gap:18px 32px;margin-bottom:16px}
.panels section{min-width:0}
.panels svg{display:block;width:100%;max-width:420px;height:auto}
.panels .cal{max-width:240px}
.note{font-size:13px;color:var(--dim);margin-top:6px}
.bad-note{font-size:13px;color:var(--crit);margin-top:6px}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:8px 32px;margin:0;
border-top:1px solid var(--line);padding-top:14px;font-size:14px}
.facts dt{font-size:13px;color:var(--dim)}
.facts dd{margin:0}
svg text{font-size:10px;fill:var(--dim);font-family:inherit}
svg .end{text-anchor:end}
.whole{fill:var(--ok)}
.unchanged{fill:none;stroke:var(--ok);stroke-width:1.6}
.damaged{fill:var(--crit)}
.missing{fill:none;stroke:var(--crit);stroke-width:2.4;stroke-linecap:round}
.late{fill:var(--warn)}
.idle{fill:none;stroke:var(--dot);stroke-width:3;stroke-linecap:round}
.unknown{fill:none;stroke:var(--dot);stroke-width:1.6}
.today{fill:none;stroke:var(--dim);stroke-width:1}
.link{fill:none;stroke:var(--dot);stroke-width:1.6}
.arrow{fill:none;stroke:var(--warn);stroke-width:1.8;stroke-linecap:round;stroke-linejoin:round}
.inc,.full{fill:var(--link);stroke:var(--link);stroke-width:1.4}
.mrg{fill:var(--ok);stroke:var(--ok);stroke-width:1.4}
.bad{fill:var(--critbg);stroke:var(--crit)}
.drop{fill:var(--card);stroke:var(--dim);stroke-dasharray:2 1.6}
.merge{fill:var(--card);stroke:var(--warn)}
.cross{fill:none;stroke:var(--crit);stroke-width:2.2;stroke-linecap:round}
.chain text{text-anchor:middle;font-weight:700;fill:var(--card)}
.chain text.hollow{fill:var(--ink)}
.grid{fill:none;stroke:var(--line)}
.stem{fill:none;stroke:var(--link);stroke-width:2}
.raw{fill:none;stroke:var(--warn);stroke-width:2}
footer{padding:8px 16px 32px;font-size:13px;color:var(--dim)}
footer details{margin-bottom:10px}
footer summary{display:flex;align-items:center;gap:8px;padding:6px 0}
footer dl{margin:4px 0 0}footer dt{font-weight:600;margin-top:6px}footer dd{margin:0}
@media (max-width:820px){.panels{grid-template-columns:minmax(0,1fr)}
.ds>summary{grid-template-columns:auto minmax(0,1fr) auto;padding:10px 16px}
.ds .strip{grid-column:2;grid-row:2;max-width:100%}.ds .num{grid-column:3}.ds .num.size{grid-row:2}
.ds .state{grid-column:2;grid-row:3;justify-self:start}
.host>summary .dim{margin-left:0;width:100%;text-align:left}}
@media (max-width:480px){header,main,footer{padding-left:12px;padding-right:12px}header{padding-top:18px}
.alarms li{grid-template-columns:1fr}.alarms p,.alarms .when{grid-column:1}.level{justify-self:start}
.verdict{padding:14px;gap:12px}.tiles{grid-template-columns:1fr 1fr}.tiles dd{font-size:17px}}
@media print{body{background:#fff;font-size:13px}.ds>summary,.panels section,.facts div,.alarms li{break-inside:avoid}
.ds>summary,h3{break-after:avoid}.host,.card,.verdict,.alarms{break-inside:avoid;border-color:#999}
details.host,.ds{break-inside:auto}svg,.level,.verdict{print-color-adjust:exact;-webkit-print-color-adjust:exact}
.skip,summary::before{display:none}header,main,footer{max-width:none}
details::details-content{content-visibility:visible;block-size:auto}}
@media (forced-colors:active){.verdict,.level{border:2px solid}svg{forced-color-adjust:none}}
"""

#: The page may use this style sheet, and nothing else: no script, no image, no font, no connection.
POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'"
)
