"""A model by its name: "openai:NAME", "anthropic:NAME", "scripted:FILE"."""

from __future__ import annotations

from typing import Any

from dragoman.errors import Misconfigured
from dragoman.host.models.base import ChatModel
from dragoman.model.faults import closest

__all__ = ["PROVIDERS", "open_model"]

PROVIDERS = ("anthropic", "openai", "scripted")


def open_model(spec: str, **options: Any) -> ChatModel:
    """The model that `spec` names. Nothing is connected yet.

    `options` are those of the adapter: `base_url`, `api_key`, `allow_plain_http`, `context_tokens`,
    `rules`, `patience`. Without a key the provider's own client looks for one where it does; an
    address of your own gets none of those.

    Raises:
        Misconfigured: there is no such provider, the model has no name, or its address or key
            cannot be used.
        MissingExtra: the provider's client is not installed.
    """
    provider, colon, name = spec.partition(":")
    if not colon or not name.strip():
        raise Misconfigured(
            f"{spec!r} names no model; write PROVIDER:NAME with one of {', '.join(PROVIDERS)}"
        )
    if provider == "openai":
        from dragoman.host.models.openai_chat import OpenAIChat

        return OpenAIChat(name, **options)
    if provider == "anthropic":
        from dragoman.host.models.anthropic_messages import AnthropicMessages

        return AnthropicMessages(name, **options)
    if provider == "scripted":
        from dragoman.host.models.scripted import ScriptedModel

        remote = [one for one in ("base_url", "api_key", "allow_plain_http") if one in options]
        if remote:
            raise Misconfigured(f"a script is a file and takes no {' or '.join(remote)}")
        return ScriptedModel.load(name, **options)
    near = closest(provider, PROVIDERS)
    hint = f"; did you mean {near!r}?" if near else "."
    raise Misconfigured(
        f"no provider is called {provider!r}{hint} There are {', '.join(PROVIDERS)};"
        " other servers with OpenAI's API go through openai: and an address (base_url=, --base-url)"
    )
