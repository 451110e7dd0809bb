"""What both libraries are told alike: which certificates to trust, and which proxy to use."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable

from dragoman.errors import Misconfigured
from dragoman.transport.http.client import HttpOptions
from dragoman.transport.http.urls import Address, is_loopback

__all__ = ["proxy_for", "tls_context", "why_refused"]

# What OpenSSL says of a certificate whose signer it does not know: 18 and 19 of one that signed itself,
# or whose authority did, 20 and 21 of one whose authority is missing.
_NOBODY_VOUCHES = frozenset({18, 19, 20, 21})


def tls_context(
    options: HttpOptions, default: Callable[[], ssl.SSLContext] = ssl.create_default_context
) -> ssl.SSLContext:
    """The context for TLS as the options say; `default` makes the one that trusts the system.

    Raises:
        Misconfigured: a file cannot be read or used.
    """
    verify = options.verify
    if isinstance(verify, ssl.SSLContext):
        if options.cert is not None:
            raise Misconfigured("cert= and a context for verify= exclude each other")
        return verify
    try:
        if isinstance(verify, str):
            is_folder = os.path.isdir(verify)
            context = ssl.create_default_context(
                cafile=None if is_folder else verify, capath=verify if is_folder else None
            )
        else:
            context = default()
    except OSError as problem:
        raise Misconfigured(f"verify={verify!r} holds no certificates: {problem}") from problem
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert is not None:
        files = (options.cert,) if isinstance(options.cert, str) else options.cert
        try:
            context.load_cert_chain(*files)
        except (OSError, TypeError) as problem:
            # Not from the problem: a TypeError may name what was passed, a password among it.
            raise Misconfigured(
                f"cert= names no certificate and key that can be used: {type(problem).__name__}"
            ) from None
    return context


def why_refused(problem: Exception) -> str:
    """Why a certificate is not accepted, and what to do where that may be right."""
    if not isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {problem}"
    text = f"its certificate is not accepted: {problem.verify_message}"
    if problem.verify_code in _NOBODY_VOUCHES:
        text += "; HttpOptions(verify=FILE) trusts those in a file"
    return text


def proxy_for(options: HttpOptions, place: Address) -> str | None:
    """The URL of the proxy for a request, or None to go there directly."""
    if options.uds is not None:
        return None
    if options.proxy is not None:
        return options.proxy or None
    if not options.trust_env or is_loopback(place.host):
        return None
    # HTTP_PROXY in upper case is what a CGI server makes of a request's Proxy header.
    is_cgi = "REQUEST_METHOD" in os.environ
    for name in (f"{place.scheme}_proxy", "all_proxy"):
        value = os.environ.get(name, "")
        if not value and not (is_cgi and name == "http_proxy"):
            value = os.environ.get(name.upper(), "")
        if value:
            if _is_exempt(place):
                return None
            return value if "://" in value else f"http://{value}"
    return None


def _is_exempt(place: Address) -> bool:
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return any(_matches(place, entry.strip().lower()) for entry in listed.split(","))


def _matches(place: Address, entry: str) -> bool:
    """Whether an entry of NO_PROXY means this host: a name, an address or a network, with port."""
    if entry in ("", "*"):
        return entry == "*"
    if "/" in entry:
        return _is_within(place.host, entry)
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]:")
        host = host.removesuffix("]")
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    else:
        host, port = entry, ""
    if port and port != str(place.port):
        return False
    name = host.lstrip("*").lstrip(".")
    return place.host == name or place.host.endswith(f".{name}")


def _is_within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
