"""What a browser shows while the ledger cannot be read: made of nothing that the ledger knows."""

from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

RETRY_S: Final = 5
_TEMPLATES: Final = Path(__file__).parents[1] / "templates"


def away(request: Request) -> Response:
    """503, and a page that asks again; after something that was to be done, for the list: it is not done twice."""
    text = _template().render(retry_s=RETRY_S, address=_address(request))
    return HTMLResponse(text, 503, {"Retry-After": str(RETRY_S)})


def _address(request: Request) -> str:
    if request.method not in ("GET", "HEAD"):
        return "/"
    path = request.url.path.lstrip("/\\")  # of this node, whatever the path begins with
    return f"/{path}?{request.url.query}" if request.url.query else f"/{path}"


@cache
def _template() -> Template:
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("away.html")
