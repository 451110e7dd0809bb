"""Forms that ask for what no form may ask for: passwords, keys, the numbers of cards.

A guess, from names and words. It is there for the person who would type a password where a server
can read it; who wants to get past it will. So what is plain is refused, and what is not is said.

Spec: client/elicitation#user-interaction-model
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from dragoman.model.unseen import without_unseen

__all__ = ["secrets_asked"]

# A field whose name or title says one of these asks for a secret; in the languages that most people
# read. Written without blanks, accents and signs, as `_plain` leaves them.
_SECRETS = (
    "password", "passwd", "passphrase", "passcode", "secret", "apikey", "accesskey", "secretkey",
    "privatekey", "signingkey", "encryptionkey", "accesstoken", "authtoken", "refreshtoken",
    "bearertoken", "sessiontoken", "apitoken", "personaltoken", "securitytoken", "credential",
    "seedphrase", "recoveryphrase", "recoverycode", "mnemonic", "onetimecode", "verificationcode",
    "creditcard", "cardnumber", "cardno", "securitycode",
    "passwort", "kennwort", "geheimnis", "motdepasse", "contrasena", "palabraclave", "senha",
    "parolachiave", "wachtwoord", "haslo", "losenord", "adgangskode", "salasana", "sifre",
    "пароль", "密码", "密碼", "パスワード", "비밀번호", "암호",
)  # fmt: skip

# Whole words that say it alone; inside others they mean nothing ("spin", "grotto").
_SECRET_WORDS = frozenset({"pwd", "pass", "pw", "cvv", "cvc", "cvv2", "otp", "totp", "mfa"})

# Words that often mean one, and often do not.
_MAYBE_WORDS = frozenset(
    {"token", "key", "pin", "code", "ssn", "iban", "account", "login", "auth", "certificate",
     "passport", "bank", "card", "parola"}
)  # fmt: skip

# Signs that stand for letters, where someone would rather not be found.
_SIGNS = str.maketrans({"0": "o", "1": "l", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s"})

# Letters of other alphabets that look like ours; a word that mixes them is meant to be misread.
_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0458\u0501\u04bb\u051d"
    "\u03bf\u03b1\u03c1\u03b5\u03b9\u03ba\u03c5\u03bd",
    "aeopcyxisjdhw" "oapeikuv",
)  # fmt: skip


def secrets_asked(schema: Mapping[str, Any], message: str) -> tuple[list[str], list[str]]:
    """What of a form asks for a secret: what surely does, and what may; a sentence each."""
    sure: list[str] = []
    maybe: list[str] = []
    properties = schema.get("properties")
    for name, field in properties.items() if isinstance(properties, Mapping) else ():
        if not isinstance(field, Mapping):
            continue
        told = [text for text in (name, field.get("title")) if isinstance(text, str)]
        if field.get("format") == "password" or field.get("writeOnly") is True:
            sure.append(f"the field {name!r} is marked as a password")
        elif any(_is_secret(text) for text in told):
            sure.append(f"the field {name!r} is for a secret")
        else:
            described = field.get("description")
            about = [*told, described] if isinstance(described, str) else told
            if any(_may_be(text) for text in about):
                maybe.append(f"the field {name!r} may be for a secret")
    if _may_be(message):
        maybe.append("its words speak of a secret")
    return sure, maybe


def _is_secret(text: str) -> bool:
    """Whether a name says that it is one, in whatever letters it is written."""
    for form in _forms(text):
        joined = "".join(_words(form))
        if any(secret in joined for secret in _SECRETS) or _SECRET_WORDS & set(_words(form)):
            return True
    return False


def _may_be(text: str) -> bool:
    return _is_secret(text) or any(_MAYBE_WORDS & set(_words(form)) for form in _forms(text))


def _forms(text: str) -> tuple[str, ...]:
    """The text as it can be read: what is unseen left out, look-alikes taken for what they show."""
    plain = unicodedata.normalize("NFKC", without_unseen(text))
    # Camel case is two words: "cardPin".
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    bare = unicodedata.normalize("NFKD", plain.lower())
    bare = "".join(one for one in bare if not unicodedata.combining(one))
    bare = unicodedata.normalize("NFC", bare).replace("ł", "l").replace("ø", "o")
    alike = bare.translate(_ALIKE)
    return (plain.lower(), bare, alike, alike.translate(_SIGNS))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text)
