"""Secrets that a configuration names instead of holding them, and those that it holds after all.

`${keyring:NAME}` and `${secret:NAME}` in a server's settings are looked up here when that server is
started, and not before. A store is the system's keyring where there is one, and else a file that
only its owner can read.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dragoman.errors import Misconfigured, MissingExtra

__all__ = [
    "FileVault",
    "KeyringVault",
    "LiteralSecret",
    "SecretStore",
    "Vault",
    "find_literal_secrets",
    "is_secret_name",
    "looks_secret",
]

# 4 MiB: a thousand private keys with room to spare.
MAX_VAULT_BYTES = 4 * 1024 * 1024

# What all of ours are filed under in a keyring.
SERVICE = "dragoman"
# A keyring cannot list what it holds, so the names are kept there, too, under a name no secret has.
_INDEX = " names"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]{0,127}")

_SECRET_WORDS = re.compile(
    r"(?:^|[^a-z])(?:tokens?|secrets?|passwords?|passwd|pass|pwd|passphrase|credentials?|bearer|"
    r"authorization|cookie|api[-_]?keys?|apikey|access[-_]?keys?|private[-_]?keys?|auth|"
    r"secret[-_]?keys?|signing[-_]?keys?|key|pat)(?:$|[^a-z])",
    re.IGNORECASE,
)
# A small letter followed by a capital begins a word: apiKey, accessToken.
_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Prefixes that their issuers chose so that leaks can be found.
_KNOWN = (
    ("ghp_", "a GitHub token"),
    ("gho_", "a GitHub token"),
    ("ghu_", "a GitHub token"),
    ("ghs_", "a GitHub token"),
    ("ghr_", "a GitHub token"),
    ("github_pat_", "a GitHub token"),
    ("glpat-", "a GitLab token"),
    ("sk-", "an API key"),
    ("sk_live_", "a Stripe key"),
    ("rk_live_", "a Stripe key"),
    ("xoxb-", "a Slack token"),
    ("xoxp-", "a Slack token"),
    ("xoxa-", "a Slack token"),
    ("xapp-", "a Slack token"),
    ("AKIA", "an AWS key"),
    ("ASIA", "an AWS key"),
    ("AIza", "a Google key"),
    ("ya29.", "a Google token"),
    ("npm_", "an npm token"),
    ("pypi-", "a PyPI token"),
    ("hf_", "a Hugging Face token"),
    ("dop_v1_", "a DigitalOcean token"),
    ("lin_api_", "a Linear key"),
    ("ntn_", "a Notion token"),
    ("secret_", "a Notion token"),
    ("SG.", "a SendGrid key"),
    ("-----BEGIN ", "a private key"),
)
# 16: a prefix alone, as in "sk-test", is no key yet.
_LEAST_KNOWN = 16
# 20 characters at 3.5 bits each hold 70 bits: what is chosen by chance has more, words have less.
_LEAST_LONG = 20
_LEAST_BITS = 3.5
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")
_OPAQUE = re.compile(r"[A-Za-z0-9_\-+/=.~]+")
_VARIABLE = re.compile(r"\$\{[^{}]*\}")
_HEX = re.compile(r"[0-9a-fA-F]{32,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PASSWORD_IN_URL = re.compile(r"://[^/@:\s]*:([^/@\s]+)@")
# Values of a variable with a secret's name that hold none: switches, paths, references.
_HARMLESS = re.compile(
    r"(?:true|false|yes|no|on|off|none|null|\d{1,6}|[~./].*|[a-z]+://[^@]*|)", re.I
)


class Vault(Protocol):
    """One place that holds secrets by name."""

    @property
    def where(self) -> str:
        """For people: where that is."""

    def get(self, name: str) -> str | None:
        """None: it has none of that name."""

    def set(self, name: str, value: str) -> None:
        """Keep it, over what was there."""

    def delete(self, name: str) -> bool:
        """False: there was none."""

    def names(self) -> Sequence[str]:
        """What it holds, sorted."""


class KeyringVault:
    """The system's keyring, by way of the library `keyring`.

    Two processes that add a secret at the same moment may leave one of the names out of `names`;
    both secrets are kept.

    Raises:
        MissingExtra: the library is not installed.
        Misconfigured: it finds no keyring here.
    """

    def __init__(self) -> None:
        try:
            import keyring
            from keyring.backends import fail
            from keyring.errors import KeyringError
        except ImportError:
            raise MissingExtra("host", "a keyring") from None
        self._keyring: Any = keyring.get_keyring()
        self._error: type[Exception] = KeyringError
        if isinstance(self._keyring, fail.Keyring) or self._keyring.priority <= 0:
            raise Misconfigured("this system has no keyring that can be used")

    @property
    def where(self) -> str:
        """The keyring's own name."""
        return f"the keyring ({self._keyring.name})"

    def get(self, name: str) -> str | None:
        """None: it has none of that name. Raises Misconfigured: it is locked or fails."""
        with self._told(f"the secret {name!r} cannot be read"):
            found = self._keyring.get_password(SERVICE, name)
        return found if isinstance(found, str) else None

    def set(self, name: str, value: str) -> None:
        """Keep it. Raises Misconfigured: it is locked or fails."""
        with self._told(f"the secret {name!r} cannot be kept"):
            self._keyring.set_password(SERVICE, name, value)
            self._index({*self.names(), name})

    def delete(self, name: str) -> bool:
        """False: there was none. Raises Misconfigured: it is locked or fails."""
        with self._told(f"the secret {name!r} cannot be deleted"):
            if self._keyring.get_password(SERVICE, name) is None:
                return False
            self._keyring.delete_password(SERVICE, name)
            self._index({*self.names()} - {name})
        return True

    def names(self) -> Sequence[str]:
        """What was kept there by us, sorted. Raises Misconfigured: it is locked or fails."""
        with self._told("the names of secrets cannot be read"):
            text = self._keyring.get_password(SERVICE, _INDEX)
        try:
            found = json.loads(text) if text else []
        except ValueError:
            found = []
        return sorted(one for one in found if isinstance(one, str))

    def _index(self, names: Iterable[str]) -> None:
        self._keyring.set_password(SERVICE, _INDEX, json.dumps(sorted(names)))

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            # Its text may be anything a system's service said; a secret is not among it.
            raise Misconfigured(f"{what}: {type(error).__name__}: {error}") from None


class FileVault:
    """A file that only its owner can read and write: JSON, one object of texts by name.

    Every change writes a new file and puts it in the old one's place, so that a crash leaves one
    of the two. Changes of several processes come one after another.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def where(self) -> str:
        """The file's path."""
        return f"the file {self._path}"

    def get(self, name: str) -> str | None:
        """None: it has none of that name. Raises Misconfigured: the file cannot be used."""
        return self._read().get(name)

    def set(self, name: str, value: str) -> None:
        """Keep it. Raises Misconfigured: the file cannot be used."""
        with self._locked():
            self._write({**self._read(), name: value})

    def delete(self, name: str) -> bool:
        """False: there was none. Raises Misconfigured: the file cannot be used."""
        with self._locked():
            held = self._read()
            if name not in held:
                return False
            del held[name]
            self._write(held)
        return True

    def names(self) -> Sequence[str]:
        """What it holds, sorted. Raises Misconfigured: the file cannot be used."""
        return sorted(self._read())

    def _read(self) -> dict[str, str]:
        flags = os.O_RDONLY
        for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"):
            flags |= getattr(os, name, 0)
        try:
            fd = os.open(self._path, flags)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Misconfigured(f"{self._path} cannot be read: {error.strerror}") from None
        with open(fd, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Misconfigured(f"{self._path} is no regular file, so it is not used")
            if sys.platform != "win32":
                if status.st_uid != os.geteuid():
                    raise Misconfigured(f"{self._path} belongs to another user, so it is not used")
                if status.st_mode & 0o077:
                    raise Misconfigured(
                        f"{self._path} can be read or written by others, so it is not used: "
                        f"chmod 600 {self._path}, and replace the secrets in it"
                    )
            data = file.read(MAX_VAULT_BYTES + 1)
        if len(data) > MAX_VAULT_BYTES:
            raise Misconfigured(f"{self._path} is larger than {MAX_VAULT_BYTES} bytes")
        try:
            held = json.loads(data)
        except ValueError:
            held = None
        if not isinstance(held, dict) or not all(isinstance(one, str) for one in held.values()):
            raise Misconfigured(f"{self._path} is broken: it must be an object of texts by name")
        return held

    def _write(self, held: Mapping[str, str]) -> None:
        data = json.dumps(held, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        try:
            # Made with mode 0600; never wider, not even for a moment.
            fd, name = tempfile.mkstemp(prefix=".secrets-", dir=self._path.parent)
            try:
                with open(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            raise Misconfigured(f"{self._path} cannot be written: {error.strerror}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(
                self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600
            )
        except OSError as error:
            raise Misconfigured(f"{self._path} cannot be written: {error.strerror}") from None
        try:
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


class SecretStore:
    """Secrets by name, in a keyring or a file or both: looked for in that order.

    New ones go to the first vault. What it has handed out it knows, so that a log can be cleared
    of it.
    """

    def __init__(self, *vaults: Vault) -> None:
        if not vaults:
            raise Misconfigured("a store of secrets needs a place for them")
        self._vaults = vaults
        self._known: dict[str, None] = {}

    @classmethod
    def open(cls, folder: Path, *, keyring: bool | None = None) -> SecretStore:
        """The user's store; `folder` is the one with the host's state, where the file is.

        With `keyring` None the system's keyring is used where there is one; True wants it, and
        False leaves it alone.

        Raises:
            MissingExtra, Misconfigured: a keyring is wanted and there is none.
        """
        vaults: list[Vault] = []
        if keyring is not False:
            try:
                vaults.append(KeyringVault())
            except Misconfigured:
                if keyring:
                    raise
        return cls(*vaults, FileVault(folder / "secrets.json"))

    @property
    def where(self) -> str:
        """For people: where a new secret is kept."""
        return self._vaults[0].where

    @property
    def known(self) -> tuple[str, ...]:
        """The values that were handed out or taken in so far."""
        return tuple(self._known)

    def get(self, name: str, *, only_keyring: bool = False) -> str:
        """The secret of that name.

        Raises:
            Misconfigured: there is none, or its place cannot be used.
        """
        _check(name)
        vaults = [one for one in self._vaults if isinstance(one, KeyringVault) or not only_keyring]
        if not vaults:
            raise Misconfigured(
                f"the secret {name!r} is to come from a keyring, and there is none here; write "
                f"${{secret:{name}}} to take it from {self._vaults[0].where}"
            )
        for vault in vaults:
            value = vault.get(name)
            if value is not None:
                self._known[value] = None
                return value
        places = " or ".join(vault.where for vault in vaults)
        raise Misconfigured(f"there is no secret {name!r} in {places}")

    def set(self, name: str, value: str) -> None:
        """Keep a secret, over one of that name. Raises Misconfigured."""
        _check(name)
        if not value:
            raise Misconfigured(f"the secret {name!r} is empty")
        self._known[value] = None
        self._vaults[0].set(name, value)

    def delete(self, name: str) -> bool:
        """Forget a secret, wherever it is; False: there was none. Raises Misconfigured."""
        _check(name)
        deleted = [vault.delete(name) for vault in self._vaults]
        return True in deleted

    def names(self) -> list[str]:
        """The names of all secrets, sorted. Raises Misconfigured."""
        return sorted(self.places())

    def places(self) -> dict[str, list[str]]:
        """Where each secret is kept, by name, for people; first what is used. Raises Misconfigured."""
        found: dict[str, list[str]] = {}
        for vault in self._vaults:
            for name in vault.names():
                found.setdefault(name, []).append(vault.where)
        return found


@dataclass(frozen=True, slots=True)
class LiteralSecret:
    """A secret that stands in a configuration itself.

    `member` is "env", "headers", "args" or "url", `name` the variable's or header's (for arguments
    the place, from 0), `why` a few words, `value` the whole text it stands in.
    """

    member: str
    name: str
    why: str
    value: str

    def __str__(self) -> str:
        return f"{self.member}.{self.name} looks like {self.why}"

    def __repr__(self) -> str:
        return f"LiteralSecret({self.member!r}, {self.name!r}, {self.why!r})"


def is_secret_name(name: str) -> bool:
    """Whether a variable or header of that name is likely to hold a secret."""
    return _SECRET_WORDS.search(_WORD_BEGINS.sub("_", name).replace("_", " ")) is not None


def looks_secret(name: str, value: str) -> str | None:
    """Why a value is likely to be a secret, in a few words; None: it is not.

    `name` is that of its variable or header, empty when it has none.
    """
    scheme, _, rest = value.partition(" ")
    bare = rest.strip() if rest and scheme.lower() in ("bearer", "basic", "token") else value
    for prefix, what in _KNOWN:
        if bare.startswith(prefix) and len(bare) >= _LEAST_KNOWN:
            return what
    if _JWT.search(bare):
        return "a signed token"
    if _PASSWORD_IN_URL.search(value):
        return "a URL with a password"
    if name and is_secret_name(name) and not _HARMLESS.fullmatch(bare):
        return "a secret, by its name"
    return "a random key" if _is_random(bare) else None


def _is_random(value: str) -> bool:
    if len(value) < _LEAST_LONG or not _OPAQUE.fullmatch(value) or _UUID.fullmatch(value):
        return False
    if value[0] in "/~." or "//" in value:
        return False
    if _HEX.fullmatch(value):
        return len(set(value.lower())) > 6
    kinds = sum(
        any(test(char) for char in value) for test in (str.isupper, str.islower, str.isdigit)
    )
    # Words joined by separators are short; a key has no words.
    longest = max(len(word) for word in re.split(r"[-_./]", value))
    return kinds == 3 and longest >= _LEAST_LONG - 4 and _bits(value) >= _LEAST_BITS


def _bits(value: str) -> float:
    """Bits a character, by how often each occurs."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values())


def find_literal_secrets(
    *,
    env: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    url: str = "",
) -> list[LiteralSecret]:
    """The secrets that stand in one server's settings themselves, in order.

    Texts are given as they are written: one with a variable in it is taken for its literal parts.
    """
    found = []
    for member, given in (("env", env or {}), ("headers", headers or {})):
        for name, value in given.items():
            why = _why_literal(name, value)
            if why is not None:
                found.append(LiteralSecret(member, name, why, value))
    before = ""
    for place, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if arg.startswith("-"):
            why = _why_literal(option, value) if equals else None
        else:
            why = _why_literal(before, arg)
        if why is not None:
            found.append(LiteralSecret("args", str(place), why, arg))
        # An option of its own names what follows it.
        before = arg if arg.startswith("-") and not equals else ""
    if url:
        why = _why_literal("", url)
        query = url.partition("?")[2]
        for pair in query.split("&") if query else ():
            name, _, value = pair.partition("=")
            why = why or _why_literal(name, value)
        if why is not None:
            found.append(LiteralSecret("url", "", why, url))
    return found


def _why_literal(name: str, text: str) -> str | None:
    """As `looks_secret`; a text with a variable in it is judged by its other parts alone."""
    parts = _VARIABLE.split(text)
    if len(parts) == 1:
        return looks_secret(name, text)
    return next((why for part in parts if (why := looks_secret("", part.strip()))), None)


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Misconfigured(
            f"{name!r} cannot name a secret: up to 128 letters, digits, '_', '-', '.' and '/'"
        )
