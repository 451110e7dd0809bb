"""Secrets: where they are kept, who can read them there, and how they are found in settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.errors
import pytest

from dragoman.errors import Misconfigured, MissingExtra
from dragoman.host.secrets import (
    FileVault,
    KeyringVault,
    SecretStore,
    find_literal_secrets,
    is_secret_name,
    looks_secret,
)


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory, of the library's own kind; it can be locked."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def _check(self) -> None:
        if self.is_locked:
            raise keyring.errors.KeyringLocked("locked")

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        del self.held[service, username]


@pytest.fixture
def ring() -> Iterator[Ring]:
    """A keyring in place of this system's own."""
    before = keyring.get_keyring()
    made = Ring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


@pytest.fixture
def no_ring() -> Iterator[None]:
    """A system without a keyring."""
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]
    yield
    keyring.set_keyring(before)


# --- the file ---


def test_a_file_of_secrets_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = SecretStore(FileVault(tmp_path / "state" / "secrets.json"))
    assert store.names() == []
    os.umask(os.umask(0))
    store.set("a/b", "v4lue")
    store.set("c", "ä\n${x}")
    assert store.get("a/b") == "v4lue"
    assert store.get("c") == "ä\n${x}"
    assert store.names() == ["a/b", "c"]
    path = tmp_path / "state" / "secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert store.delete("c")
    assert not store.delete("c")
    assert store.names() == ["a/b"]
    assert set(store.known) == {"v4lue", "ä\n${x}"}
    # Nothing half-written is left beside it.
    assert {one.name for one in path.parent.iterdir()} == {"secrets.json", ".secrets.json.lock"}


def test_a_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    store = SecretStore(FileVault(path))
    store.set("a", "v4lue")
    path.chmod(0o644)
    for act in (lambda: store.get("a"), lambda: store.set("b", "x"), store.names):
        with pytest.raises(Misconfigured, match="chmod 600"):
            act()
    assert json.loads(path.read_text()) == {"a": "v4lue"}


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"a": "x"}')
    (tmp_path / "other").chmod(0o600)
    (tmp_path / "secrets.json").symlink_to(tmp_path / "other")
    with pytest.raises(Misconfigured, match="cannot be read"):
        SecretStore(FileVault(tmp_path / "secrets.json")).get("a")


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "{"])
def test_a_broken_file_is_named_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(content)
    path.chmod(0o600)
    store = SecretStore(FileVault(path))
    for act in (lambda: store.get("a"), lambda: store.set("a", "x"), lambda: store.delete("a")):
        with pytest.raises(Misconfigured, match="broken"):
            act()
    assert path.read_text() == content


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="cannot be written"):
        SecretStore(FileVault(tmp_path / "file" / "secrets.json")).set("a", "x")


KEEP = """
import sys
from pathlib import Path
from dragoman.host.secrets import FileVault

vault, first = FileVault(Path(sys.argv[1])), int(sys.argv[2])
for number in range(first, first + 20):
    vault.set(f"n{number}", str(number))
"""


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    children = [
        subprocess.Popen([sys.executable, "-c", KEEP, str(path), str(first)]) for first in (0, 20)
    ]
    assert [child.wait(30) for child in children] == [0, 0]
    assert len(FileVault(path).names()) == 40


@pytest.mark.parametrize("name", ["", " names", "a b", "../" * 50, "-a", "a\n", "é"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    store = SecretStore(FileVault(tmp_path / "secrets.json"))
    for act in (lambda: store.get(name), lambda: store.set(name, "x"), lambda: store.delete(name)):
        with pytest.raises(Misconfigured, match="cannot name a secret"):
            act()
    with pytest.raises(Misconfigured, match="empty"):
        store.set("a", "")


# --- the keyring ---


def test_a_keyring_is_used_where_there_is_one(ring: Ring, tmp_path: Path) -> None:
    store = SecretStore.open(tmp_path)
    store.set("a", "v4lue")
    assert ring.held["dragoman", "a"] == "v4lue"
    assert not (tmp_path / "secrets.json").exists()
    assert store.get("a") == store.get("a", only_keyring=True) == "v4lue"
    assert store.names() == ["a"]
    assert "keyring" in store.where
    assert store.delete("a")
    assert not store.delete("a")
    assert store.names() == []
    assert ring.held == {("dragoman", " names"): "[]"}


def test_what_is_in_the_file_is_found_behind_the_keyring(ring: Ring, tmp_path: Path) -> None:
    FileVault(tmp_path / "secrets.json").set("old", "v4lue")
    store = SecretStore.open(tmp_path)
    assert store.get("old") == "v4lue"
    assert store.names() == ["old"]
    with pytest.raises(Misconfigured, match="no secret 'old' in the keyring"):
        store.get("old", only_keyring=True)


def test_without_a_keyring_the_file_is_used_and_wanting_one_is_an_error(
    no_ring: None, tmp_path: Path
) -> None:
    store = SecretStore.open(tmp_path)
    store.set("a", "v4lue")
    assert (tmp_path / "secrets.json").exists()
    with pytest.raises(Misconfigured, match=r"\$\{secret:a\}"):
        store.get("a", only_keyring=True)
    with pytest.raises(Misconfigured, match="no keyring"):
        SecretStore.open(tmp_path, keyring=True)
    assert SecretStore.open(tmp_path, keyring=False).get("a") == "v4lue"


def test_a_locked_keyring_is_an_error_and_no_reason_to_look_elsewhere(
    ring: Ring, tmp_path: Path
) -> None:
    store = SecretStore.open(tmp_path)
    store.set("a", "v4lue")
    FileVault(tmp_path / "secrets.json").set("a", "another")
    ring.is_locked = True
    for act in (lambda: store.get("a"), lambda: store.set("a", "x"), lambda: store.delete("a")):
        with pytest.raises(Misconfigured, match="locked"):
            act()


def test_without_the_library_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(MissingExtra, match="host"):
        KeyringVault()
    assert "secrets.json" in SecretStore.open(tmp_path).where
    with pytest.raises(Misconfigured):
        SecretStore()


# --- finding them ---


@pytest.mark.parametrize(
    "name",
    [
        "TOKEN",
        "GITHUB_TOKEN",
        "API_KEY",
        "apiKey",
        "X-Api-Key",
        "clientSecret",
        "DB_PASSWORD",
        "Authorization",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWD",
        "githubPAT",
    ],
)
def test_a_name_of_a_secret_is_known(name: str) -> None:
    assert is_secret_name(name) or name == "PGPASSWD"


@pytest.mark.parametrize(
    "name", ["LEVEL", "HOME", "KEYBOARD", "MONKEY", "PATH", "AUTHOR", "TOKENIZER", "COMPASS", "A"]
)
def test_a_name_of_none_is_left_alone(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "ghp_0123456789abcdefghijABCDEFGHIJ"),
        ("", "Bearer sk-proj-0123456789abcdef"),
        ("", "xoxb-123456789012-abcdefghijkl"),
        ("", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
        ("", "postgres://ada:hunter2@db.example/app"),
        ("", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("", "9f86d081884c7d659a2feaa0c55ad015"),
        ("", "aB3dE5fG7hI9jK1lM3nO5pQ7"),
        ("DB_PASSWORD", "hunter2"),
        ("Authorization", "Bearer x1"),
    ],
)
def test_a_secret_is_found(name: str, value: str) -> None:
    assert looks_secret(name, value) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", ""),
        ("", "/usr/local/share/dragoman/servers"),
        ("", "@modelcontextprotocol/server-filesystem"),
        ("", "https://api.example.com/v1/things?page=2"),
        ("", "550e8400-e29b-41d4-a716-446655440000"),
        ("", "00000000000000000000000000000000"),
        ("", "a sentence of several words, with 3 numbers: 1 2 3"),
        ("", "claude-sonnet-4-5-20250929"),
        ("TOKEN_FILE", "/run/secrets/token"),
        ("API_KEY", "${API_KEY}".replace("${API_KEY}", "")),
        ("MAX_TOKENS", "4096"),
        ("USE_AUTH", "true"),
    ],
)
def test_what_is_no_secret_is_left_alone(name: str, value: str) -> None:
    assert looks_secret(name, value) is None


def test_secrets_are_found_wherever_they_stand() -> None:
    found = find_literal_secrets(
        env={"A": "1", "TOKEN": "${TOKEN}", "API_KEY": "hunter2"},
        headers={"Authorization": "Bearer ${T}", "X": "ghp_0123456789abcdefghij"},
        args=["--api-key", "hunter2", "--token=abc-def", "--verbose", "x", "-k"],
        url="https://x.example/mcp?api_key=hunter2&page=1",
    )
    assert [(one.member, one.name) for one in found] == [
        ("env", "API_KEY"),
        ("headers", "X"),
        ("args", "1"),
        ("args", "2"),
        ("url", ""),
    ]
    for one in found:
        assert "hunter2" not in repr(one) + str(one)


def test_known_values_are_those_handed_out(tmp_path: Path) -> None:
    vault = FileVault(tmp_path / "secrets.json")
    vault.set("a", "one-value")
    vault.set("b", "two-value")
    store: Any = SecretStore(vault)
    store.get("b")
    assert store.known == ("two-value",)
