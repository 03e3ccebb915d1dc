# SPDX-License-Identifier: Apache-2.0
"""Secrets at rest: what decrypts, what must not, and when a key file is not this database's."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volmgr import crypto, exception
from volmgr.crypto import SECRETS, Cipher, KeyRing, create_key_file, read_key_file, read_ring, replace_key_file
from volmgr.db import models, schema
from volmgr.db.engine import Database
from volmgr.types import Secret

CIPHER = Cipher.generate()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
COLUMNS = st.sampled_from(sorted(SECRETS))
HERE = ("exports", "auth_secret", "k")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/db.sqlite")
    schema.upgrade(made)
    yield made
    made.close()


@given(COLUMNS, TEXT, TEXT)
def test_what_is_encrypted_comes_back(where: tuple[str, str], key: str, secret: str) -> None:
    table, column = where
    text = CIPHER.encrypt(table, column, key, Secret(secret))
    assert CIPHER.decrypt(table, column, key, text) == Secret(secret)
    assert text.startswith(f"v1:{CIPHER.current}:")


@given(st.text(min_size=8, max_size=40, alphabet="abcdefghijklmnop"))
def test_the_ciphertext_does_not_show_the_secret_and_is_never_the_same(secret: str) -> None:
    first, second = (CIPHER.encrypt(*HERE, Secret(secret)) for _ in range(2))
    assert first != second
    assert secret.encode() not in base64.b64decode(first.rpartition(":")[2])


@given(COLUMNS, TEXT, st.tuples(TEXT, TEXT, TEXT) | st.tuples(COLUMNS, TEXT).map(lambda item: (*item[0], item[1])))
def test_a_ciphertext_in_another_row_is_refused(
    where: tuple[str, str], key: str, there: tuple[str, str, str]
) -> None:
    here = (*where, key)
    text = CIPHER.encrypt(*here, Secret("swordfish"))
    if here == there:
        assert CIPHER.decrypt(*there, text) == Secret("swordfish")
        return
    with pytest.raises(exception.Inconsistent) as caught:
        CIPHER.decrypt(*there, text)
    assert "swordfish" not in str(caught.value)


@given(st.data())
@settings(max_examples=200)
def test_every_flipped_bit_is_refused(data: st.DataObject) -> None:
    text = CIPHER.encrypt("volumes", "provider_auth", "1", Secret("CHAP user word"))
    head, _, encoded = text.rpartition(":")
    raw = bytearray(base64.b64decode(encoded))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(exception.Inconsistent):
        CIPHER.decrypt("volumes", "provider_auth", "1", f"{head}:{base64.b64encode(raw).decode()}")


@given(st.data())
def test_every_changed_character_is_refused(data: st.DataObject) -> None:
    text = CIPHER.encrypt(*HERE, Secret("word"))
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("AZaz09+/=:v"))
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises((exception.Inconsistent, exception.KeyMismatch)):
            CIPHER.decrypt(*HERE, changed)


@pytest.mark.parametrize("text", ["", "v1", "v1:", "v2:x:y", "v1:x", "plain"])
def test_what_is_no_ciphertext_is_refused(text: str) -> None:
    with pytest.raises(exception.Inconsistent):
        CIPHER.decrypt(*HERE, text)


def test_a_key_that_is_not_there_is_a_mismatch() -> None:
    text = Cipher.generate().encrypt(*HERE, Secret("x"))
    with pytest.raises(exception.KeyMismatch):
        CIPHER.decrypt(*HERE, text)


def test_nothing_shows_the_key() -> None:
    key = base64.b64encode(CIPHER._keys[CIPHER.current]).decode()
    assert key not in repr(CIPHER)
    assert "_keys" not in repr(CIPHER)


def test_the_first_start_makes_a_private_key_and_the_second_uses_it(db: Database, tmp_path: Path) -> None:
    path = str(tmp_path / "sub" / "keys.json")
    text = Cipher.open(path, db).encrypt(*HERE, Secret("kept"))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path / "sub") == ["keys.json"]
    assert Cipher.open(path, db).decrypt(*HERE, text) == Secret("kept")


def test_a_missing_key_file_is_never_replaced(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    Cipher.open(str(path), db)
    path.unlink()
    with pytest.raises(exception.KeyMismatch) as caught:
        Cipher.open(str(path), db)
    assert "backup" in caught.value.hint
    assert not path.exists()


def test_another_deployments_key_file_is_refused(db: Database, tmp_path: Path) -> None:
    Cipher.open(str(tmp_path / "keys.json"), db)
    crypto.create_key_file(str(tmp_path / "foreign.json"))
    with pytest.raises(exception.KeyMismatch):
        Cipher.open(str(tmp_path / "foreign.json"), db)
    with db.reader() as conn:
        assert len(conn.execute(models.keys.select()).all()) == 1


def test_a_forged_key_under_the_right_id_is_refused(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    current = Cipher.open(str(path), db).current
    forged = {"current": current, "keys": {current: base64.b64encode(bytes(32)).decode()}}
    path.write_text(json.dumps(forged))
    with pytest.raises(exception.KeyMismatch):
        Cipher.open(str(path), db)


def test_a_second_key_is_taken_up_while_the_first_still_opens(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    old = Cipher.open(str(path), db).encrypt(*HERE, Secret("old"))
    value = json.loads(path.read_text())
    value["keys"]["second"] = base64.b64encode(os.urandom(32)).decode()
    value["current"] = "second"
    path.write_text(json.dumps(value))
    cipher = Cipher.open(str(path), db)
    assert cipher.encrypt(*HERE, Secret("new")).startswith("v1:second:")
    assert cipher.decrypt(*HERE, old) == Secret("old")
    # From now on a file that lacks either of them is not this database's.
    del value["keys"][old.split(":")[1]]
    path.write_text(json.dumps(value))
    with pytest.raises(exception.KeyMismatch):
        Cipher.open(str(path), db)


def test_others_may_not_read_the_key_file(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    Cipher.open(str(path), db)
    path.chmod(0o640)
    with pytest.raises(exception.InvalidConfiguration) as caught:
        Cipher.open(str(path), db)
    assert caught.value.hint == f"Run: chmod 600 {path}"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"current": "a", "keys": {}}', '{"current": "a", "keys": {"a": "eA=="}}']
)
def test_a_damaged_key_file_is_refused_and_not_shown(text: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(exception.InvalidConfiguration, match="damaged") as caught:
        crypto.read_key_file(str(path))
    assert caught.value.__cause__ is None


def test_starts_at_the_same_moment_agree_on_one_key(db: Database, tmp_path: Path) -> None:
    path = str(tmp_path / "keys.json")
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(Cipher.open(path, db).current)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert len(set(found)) == 1


# --- a file that is replaced ----------------------------------------------------------------------------------------


def test_a_process_follows_its_file(db: Database, tmp_path: Path) -> None:
    path = str(tmp_path / "keys.json")
    running = Cipher.open(path, db)
    first, old = running.current, running.encrypt(*HERE, Secret("old"))
    ring = KeyRing("second", {**read_ring(path).keys, "second": os.urandom(32)}, since=1.5)
    replace_key_file(path, ring)
    assert read_ring(path) == ring
    new = running.encrypt(*HERE, Secret("new"))
    assert new.startswith("v1:second:")
    replace_key_file(path, KeyRing("second", {"second": ring.keys["second"]}))
    assert running.encrypt(*HERE, Secret("x")).startswith("v1:second:")
    assert running.decrypt(*HERE, old) == Secret("old"), "what was read before the change is still opened"
    with pytest.raises(exception.KeyMismatch, match=first):
        read_key_file(path).decrypt(*HERE, old)


def test_a_key_that_comes_with_a_row_is_looked_for_in_the_file(db: Database, tmp_path: Path) -> None:
    path = str(tmp_path / "keys.json")
    running = Cipher.open(path, db)
    ring = KeyRing(running.current, {**read_ring(path).keys, "other": os.urandom(32)})
    text = Cipher("other", ring.keys).encrypt(*HERE, Secret("theirs"))
    with pytest.raises(exception.KeyMismatch):
        running.decrypt(*HERE, text)
    replace_key_file(path, ring)
    assert running.decrypt(*HERE, text) == Secret("theirs")


@pytest.mark.parametrize("text", [None, "{", '{"current": "x", "keys": {}}'])
def test_a_file_that_breaks_beneath_a_process_changes_nothing(db: Database, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "keys.json"
    running = Cipher.open(str(path), db)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    sealed = running.encrypt(*HERE, Secret("kept"))
    assert running.decrypt(*HERE, sealed) == Secret("kept")


def test_a_secret_is_kept_only_where_keys_can_be_changed() -> None:
    with pytest.raises(ValueError, match=r"volumes\.name"):
        CIPHER.encrypt("volumes", "name", "k", Secret("x"))


def test_a_replaced_file_stays_its_owners(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("does not apply: only root can give files away")
    path = str(tmp_path / "keys.json")
    create_key_file(path)
    os.chown(path, 12345, 54321)
    replace_key_file(path, read_ring(path))
    seen = os.stat(path)
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (12345, 54321, 0o600)
    assert os.listdir(tmp_path) == ["keys.json"]
