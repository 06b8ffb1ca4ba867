"""Ask an ASGI application without a network."""

import asyncio
from typing import Any

import httpx


class Client:
    """Synchronous requests to `app` as if from this machine."""

    def __init__(self, app: Any, base_url: str = "http://127.0.0.1") -> None:
        self._app = app
        self._base_url = base_url

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One GET."""
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())
