"""What the interface for programs says of itself: /openapi.json, and /docs made of it here, of nothing else."""

from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ledger.access import Role
from node.web.access import guard_of
from node.web.api_schemas import Analysis, Batch, Page, ProblemDetails, Released, Study
from node.web.problems import MEDIA_TYPE, phrase

TEMPLATES: Final = Path(__file__).parents[1] / "templates"
ABOUT: Final = """Looks at images that are uploaded, tells what became of studies that were sent, and takes studies in.

Every address needs a token (opentriage token create NAME --role read), sent as Authorization: Bearer TOKEN. A role
includes those before it: read, operate, admin. What is wrong is said as problem details (RFC 9457), which never hold
anything of a patient. Nothing here is a diagnosis; an image that is not flagged may show what no model looks for."""
_WHY: Final = {
    400: "The request is broken: it is no multipart body, or was cut off.",
    401: "No token, or none that is good.",
    403: "The token's role is too small, or a browser sent this from elsewhere.",
    404: "There is no such thing.",
    406: "The answer is of another media type than the caller reads.",
    408: "The body did not come in time.",
    409: "It cannot be done as things are.",
    413: "The body is too long, or has too many parts.",
    415: "The body is of another media type, or compressed.",
    422: "A parameter, a field or a file is not what it should be.",
    429: "Too many bad tokens came from this address; Retry-After says how long to wait.",
    503: "Not now: the node is busy, full, or has no analyser; Retry-After says when to try again.",
}
_ALWAYS: Final = (401, 403, 422, 429, 503)
_BODY: Final = (400, 408, 413, 415)
_PROBLEM: Final = {"$ref": "#/components/schemas/ProblemDetails"}
_FILE: Final = {"type": "string", "format": "binary"}
_FIELDS: Final = {
    "as": {"type": "string", "enum": ["chest-xray", "limb-xray"], "description": "What PNG and JPEG files show."},
    "age": {"type": "number", "minimum": 0, "maximum": 150, "description": "Years: whose PNG or JPEG files these are."},
}


def _route(
    summary: str,
    about: str,
    role: Role,
    answers: dict[int, dict[str, Any]],
    curl: str,
    problems: tuple[int, ...] = (),
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    refusals = {
        status: {"description": _WHY[status], "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
        for status in sorted({*_ALWAYS, *problems} - set(answers))
    }
    extra: dict[str, Any] = {"security": [{"token": []}, {"session": []}], "x-role": role.value, "x-curl": curl}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": body}
    return {
        "summary": summary,
        "description": about,
        "responses": {**answers, **refusals},
        "openapi_extra": extra,
        "response_class": JSONResponse,
    }


def _form(files: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": ["file"], "properties": {"file": files, **_FIELDS}}
    return {"multipart/form-data": {"schema": {**schema, "additionalProperties": False}}}


def _said(model: type, about: str) -> dict[int, dict[str, Any]]:
    return {200: {"model": model, "description": about}}


_CURL: Final = 'curl -H "Authorization: Bearer $TOKEN"'
ANALYZE: Final = _route(
    "Look at one image",
    "One DICOM, PNG or JPEG file. It is judged as a routed image is, by the same models and thresholds, and not kept; "
    "the age of the study plays no part. Images that were routed to the node go first.",
    Role.READ,
    _said(Analysis, "What the models say of it."),
    f"{_CURL} -F file=@chest.dcm http://127.0.0.1:8042/analyze",
    _BODY,
    _form(_FILE),
)
BATCH: Final = _route(
    "Look at many images",
    "As /analyze for each part `file`, in order. One that cannot be looked at is an item with a problem; the "
    "others are looked at all the same.",
    Role.READ,
    _said(Batch, "An item for each file, in the order in which they came."),
    f"{_CURL} -F file=@one.dcm -F file=@two.dcm http://127.0.0.1:8042/batch_analyze",
    _BODY,
    _form({"type": "array", "minItems": 1, "items": _FILE}),
)
WORKLIST: Final = _route(
    "The triage list of the day",
    "Most urgent first, without anybody's name: the lines of `opentriage worklist --json`.",
    Role.READ,
    _said(Page, "A page of the list."),
    f'{_CURL} "http://127.0.0.1:8042/worklist?limit=20"',
)
STUDY: Final = _route(
    "Everything that happened to a study",
    "What `opentriage explain` tells: what came, what each model said of each image, what was made of it and where "
    "that went.",
    Role.READ,
    _said(Study, "The study."),
    f"{_CURL} http://127.0.0.1:8042/studies/1.2.3",
    (404,),
)
AUDIT_LOG: Final = _route(
    "The audit trail",
    "Newest first. Studies and patients are keyed hashes; ask for a study by its UID. Reading is itself audited.",
    Role.ADMIN,
    _said(Page, "A page of the trail."),
    f'{_CURL} "http://127.0.0.1:8042/audit_log?failures=true"',
)
RELEASE: Final = _route(
    "Let a parked job run again",
    "With fresh attempts, once its cause is gone. The page and `opentriage release` list the parked jobs.",
    Role.OPERATE,
    _said(Released, "It is queued."),
    f"{_CURL} -X POST http://127.0.0.1:8042/jobs/7/release",
    (404, 409),
)
_STORED: Final = {"schema": {"type": "object", "description": "Store Instances Response (PS3.18 10.5.3)"}}
STOW: Final = _route(
    "Store instances (DICOMweb STOW-RS)",
    "PS3.18 10.5: one DICOM file in each part. They are admitted exactly as by C-STORE: an instance that is named in "
    "the Referenced SOP Sequence is durable. With a study in the address every instance must be of that study.",
    Role.OPERATE,
    {
        status: {"description": about, "content": {"application/dicom+json": _STORED}}
        for status, about in (
            (200, "All are stored."),
            (202, "Some are stored; the Failed SOP Sequence has the others."),
            (409, "None could be stored."),
        )
    },
    f"{_CURL} -H 'Content-Type: multipart/related; type=\"application/dicom\"; boundary=B' "
    "--data-binary @body http://127.0.0.1:8042/studies",
    (*_BODY, 406),
    {'multipart/related; type="application/dicom"': {"schema": {"type": "string", "format": "binary"}}},
)


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="OpenTriage", version=version("opentriage"), description=ABOUT, routes=app.routes
        )  # fmt: skip
        components = made.setdefault("components", {})
        components.setdefault("schemas", {})["ProblemDetails"] = ProblemDetails.model_json_schema()
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "opentriage token create"},
            "session": {"type": "apiKey", "in": "cookie", "name": app.state.guard.cookie,
                        "description": "From the page's sign-in; what changes something needs X-CSRF-Token too."},
        }  # fmt: skip
        app.openapi_schema = made
    return app.openapi_schema


async def openapi_json(request: Request) -> Response:
    """For programs that make clients of it."""
    await guard_of(request).require(request, Role.READ)
    return JSONResponse(openapi_of(request.app))


async def docs(request: Request) -> Response:
    """The same for people."""
    await guard_of(request).require(request, Role.READ)
    document = openapi_of(request.app)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    operations = [
        {"path": path, "method": method.upper(), **operation}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    text = environment.get_template("api.html").render(
        document=document, operations=operations, schemas=document["components"]["schemas"], phrase=phrase,
        kind_of=kind_of,
    )  # fmt: skip
    return HTMLResponse(text)


def kind_of(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(kind_of(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "anything"))
    return f"list of {kind_of(schema.get('items', {}))}" if kind == "array" else kind


def docs_routes() -> list[Route]:
    return [Route("/openapi.json", openapi_json), Route("/docs", docs)]
