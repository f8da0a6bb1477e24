from __future__ import annotations

import base64
import hashlib
import re

from fullsend_report.style import POLICY, STYLE


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'" == POLICY


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "<" not in STYLE


def test_each_colour_that_is_used_is_defined_for_both_schemes() -> None:
    light, dark = STYLE.split("@media screen and (prefers-color-scheme:dark)")
    used = set(re.findall(r"var\((--[a-z]+)\)", STYLE))
    assert used <= set(re.findall(r"(--[a-z]+):", light))
    assert used <= set(re.findall(r"(--[a-z]+):", dark))
