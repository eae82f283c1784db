"""What comes from outside never commands a terminal nor makes a second line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims_core.common.shown import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b c.png", "a/b c.png"),
        ("é 猫.png", "é 猫.png"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("a\nerror: forged\r", "a\\nerror: forged\\r"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("a\u2028b\x85\x9b", "a\\u2028b\\x85\\x9b"),
        (b"caf\xe9".decode(errors="surrogateescape"), "caf\\xe9"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, expected):
    assert shown(text) == expected


@given(st.text())
def test_one_line_that_can_be_encoded(text):
    got = shown(text)
    assert len(got.splitlines()) <= 1
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Cf") for c in got)
    got.encode()


def test_what_is_long_keeps_its_ends():
    got = shown("begin" + "x" * 100_000 + "end")
    assert len(got) < 2100
    assert got.startswith("begin")
    assert got.endswith("end")
