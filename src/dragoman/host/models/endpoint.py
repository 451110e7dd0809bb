"""Where a model is, and which key may go there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from dragoman.errors import Misconfigured
from dragoman.transport.http.urls import Address, address, is_loopback

__all__ = ["Endpoint", "endpoint", "key_variables"]

# By provider: the variable its own client takes an address from, those of its keys, its hosts.
_PROVIDERS = {
    "anthropic": (
        "ANTHROPIC_BASE_URL",
        ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        "api.anthropic.com",
    ),
    "openai": ("OPENAI_BASE_URL", ("OPENAI_API_KEY",), "api.openai.com"),
}
_KEY = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider's API is asked.

    `is_own` says that somebody else answers there, or
    one's own machine; then `key` is all there is to show, and None means none at all. `sink` is how
    rules on flows call it, `withheld` the variable whose key was not sent there.
    """

    url: str
    key: str | None
    sink: str
    is_own: bool = False
    # Never through a proxy: it would be asked for an address of its own machine.
    is_local: bool = False
    host: str = ""
    withheld: str = ""


def endpoint(
    provider: str, base_url: str | None, api_key: str | None, *, allow_plain_http: bool
) -> Endpoint:
    """Where the models of `provider` are, by an address given or the one of its own variable.

    A provider's key in the environment is for that provider: another address gets the key that was
    given for it, or none.

    Raises:
        Misconfigured: the address or the key cannot be used, or words would travel in the clear.
    """
    variable, keys, official = _PROVIDERS[provider]
    if api_key is not None:
        api_key = api_key.strip()
        if not _KEY.fullmatch(api_key):
            raise Misconfigured("the key is empty, or has characters that no key has")
    given = base_url if base_url is not None else os.environ.get(variable) or None
    if given is None:
        # Written out: the library would look into the variable again, later, and take an empty one.
        return Endpoint(f"https://{official}/v1", api_key, provider)
    source = "base_url" if base_url is not None else variable
    place = _place(given, source)
    url = place.origin + place.target.rstrip("/")
    is_theirs = place.host == official or place.host.endswith(f".{official}")
    if is_theirs and place.scheme == "https" and place.port == 443:
        return Endpoint(url, api_key, provider)
    is_local = is_loopback(place.host)
    known = next((name for name in keys if os.environ.get(name)), "")
    if place.scheme == "http" and not is_local and not allow_plain_http:
        raise Misconfigured(
            f"{source}: {place.shown} is not encrypted: all that is said, and the key, could be "
            "read on the way. Use https, or allow_plain_http (--allow-plain-http) on a network "
            "you trust"
        )
    return Endpoint(
        url,
        api_key,
        place.origin.partition("://")[2],
        is_own=True,
        is_local=is_local,
        host=place.host,
        withheld=known if api_key is None else "",
    )


def key_variables(provider: str) -> tuple[str, ...]:
    """The variables in which a provider's key may be, the usual one first."""
    return _PROVIDERS[provider][1]


def _place(url: str, source: str) -> Address:
    try:
        place = address(url)
    except Misconfigured as problem:
        raise Misconfigured(f"{source}: {problem}") from None
    if place.authorization is not None:
        raise Misconfigured(
            f"{source}: {place.shown} has a name or password in it; give the key by itself"
        )
    if "?" in place.target:
        raise Misconfigured(f"{source}: {place.shown} has a query, which would be lost")
    return place
