"""What the models behind a provider's API share: where it is, its client, its errors."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from dragoman.host.models.base import ModelError, ProviderRules, Trouble, estimate_tokens
from dragoman.host.models.bounded import bounded_client
from dragoman.host.models.endpoint import endpoint, key_variables
from dragoman.host.models.exchange import Patience, events_of

__all__ = ["Remote"]


class Remote:
    """A model behind an API of `dialect` ("openai", "anthropic").

    `provider` is where the words go: the dialect's own provider, or HOST:PORT of another address.
    `name` says the same, so that models of one name at two addresses are told apart.
    """

    def __init__(
        self,
        library: Any,
        dialect: str,
        model: str,
        *,
        base_url: str | None,
        api_key: str | None,
        context_tokens: int,
        rules: ProviderRules,
        patience: Patience | None,
        allow_plain_http: bool,
    ) -> None:
        end = endpoint(dialect, base_url, api_key, allow_plain_http=allow_plain_http)
        self.model = model
        self.provider = end.sink
        self.name = f"{dialect}:{model}@{end.sink}" if end.is_own else f"{dialect}:{model}"
        self.context_tokens = context_tokens
        self.rules = rules
        self.endpoint = end
        self._dialect = dialect
        self.library = library
        self.patience = patience or Patience()
        self._client: Any = None

    def count_tokens(self, text: str) -> int:
        """See `estimate_tokens`."""
        return estimate_tokens(text)

    @property
    def missing_key(self) -> str:
        """The variable that should hold the provider's key, where there is none to be seen."""
        names = key_variables(self._dialect)
        has_key = self.endpoint.key is not None or any(os.environ.get(one) for one in names)
        return "" if self.endpoint.is_own or has_key else names[0]

    async def aclose(self) -> None:
        """Close the connections to the provider."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def connected(self, make: Callable[..., Any], key_header: str | None, base_url: str) -> Any:
        """The library's client, of the class `make`; the same each time."""
        if self._client is None:
            end = self.endpoint
            http = bounded_client(self.library, end, key_header, self.patience.idle_s)
            self._client = make(
                # Without one the library looks for the provider's in the environment.
                api_key=(end.key or "none") if end.is_own else end.key,
                base_url=base_url,
                # No retries there: ours know what has reached the caller.
                max_retries=0,
                timeout=self.patience.idle_s,
                http_client=http,
            )
        return self._client

    async def events(
        self,
        start: Callable[[], Awaitable[Any]],
        on_end: Callable[[bool], None] = lambda has_done: None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """As `events_of`, with what helps against an error."""
        try:
            async with aclosing(
                events_of(self.library, self.provider, start, self.patience, on_end)
            ) as found:
                async for event in found:
                    yield event
        except ModelError as trouble:
            hint = self._hint(trouble.kind)
            if not hint:
                raise
            raise ModelError(
                trouble.kind,
                f"{str(trouble).removeprefix(f'{self.provider}: ')}; {hint}",
                provider=trouble.provider,
                status=trouble.status,
                retry_after_s=trouble.retry_after_s,
            ) from trouble

    def _hint(self, kind: Trouble) -> str:
        end = self.endpoint
        if kind is Trouble.AUTH and end.withheld:
            return (
                f"the key in {end.withheld} was not sent there; if it is meant for this address, "
                f"say so: --key-env {end.withheld}, or api_key"
            )
        if kind is Trouble.AUTH and self.missing_key:
            return f"set {self.missing_key}, or name another variable with --key-env (api_key)"
        if kind is Trouble.NOT_FOUND and end.is_own and not end.url.endswith("/v1"):
            return "most addresses of this kind end with /v1"
        return ""
