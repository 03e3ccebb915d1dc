# SPDX-License-Identifier: Apache-2.0
"""No secret is left in a text, whatever stands around it; and nothing else is taken out."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr.support import scrub

PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=scrub.SHORTEST, max_size=40)
TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789+/=_-", min_size=8, max_size=32)


@given(PRINTABLE, st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_found_anywhere_and_as_urls_have_it(secret: str, before: str, after: str) -> None:
    scrubber = scrub.Scrubber([secret])
    for form in (secret, urllib.parse.quote(secret, safe="")):
        left = scrubber.scrub(f"{before}{form}{after}").replace(scrub.MASK, "")
        assert secret not in left or secret in before + after or set(secret) <= {"*"}


@given(TOKENS)
def test_a_token_is_found_between_other_words(token: str) -> None:
    scrubber = scrub.Scrubber(tokens=[token])
    assert scrubber.scrub(f"before {token}, after") == "before ***, after"
    assert scrubber.scrub(f"before {token}x after") == f"before {token}x after"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rabbit://u:p%40w@h1,u:pw@h2/v", "rabbit://u:***@h2/v"),
        ("postgresql+psycopg2://volmgr:pw/db is no url", "postgresql+psycopg2://volmgr:pw/db is no url"),
        ("chap_password = abc def", "chap_password = *** def"),
        ("""{'auth_password': 'a "b" c', 'user': 'u'}""", """{'auth_password': "***", 'user': 'u'}"""),
        ('"san_password": "a\\"b", "x": 1', '"san_password": "***", "x": 1'),
        ("X-Auth-Token: abcdef; next", "X-Auth-Token: ***; next"),
        ("authorization: Bearer abcdefghijk end", "authorization: Bearer *** end"),
        ("provider_auth CHAP user s3cret end", "provider_auth CHAP user *** end"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nend", "***\nend"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "***"),
        ("key_file = /var/lib/volmgr/keys.json", "key_file = /var/lib/volmgr/keys.json"),
        ("volume 4d0c is in-use on node@b", "volume 4d0c is in-use on node@b"),
    ],
)
def test_what_looks_like_a_secret(text: str, wanted: str) -> None:
    assert scrub.Scrubber().scrub(text) == wanted


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("plain", ["plain"]),
        ("rabbit://u:p%40w@h1,v:x@h2/v", ["p%40w", "p@w", "x", "x"]),
        ("sqlite:////var/lib/volmgr.sqlite", []),
        ([{"backend_id": "one", "san_password": "two"}], ["one", "two"]),
        (None, []),
        ("", []),
    ],
)
def test_the_secrets_in_an_options_value(value: object, parts: list[str]) -> None:
    assert list(scrub.parts_of(value)) == parts
