"""How is the API described? OpenAPI 3.1, made from the table of endpoints and their structs.

The structs that decode requests are the ones described, so the document cannot drift: msgspec
writes their JSON Schema, with the limits and with unknown fields refused.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from stratus.api.decode import REFERENCE_PATTERN
from stratus.api.endpoint import Access, Endpoint, NoBody, NoQuery, RawBody
from stratus.model.problem import CATALOGUE
from stratus.wire.problem import MEDIA_TYPE, ProblemBody, status_of
from stratus.wire.v1 import END

REFS: Final = "#/components/schemas/{name}"
PAGE_OF: Final = re.compile(rb"\bPage_([A-Za-z]+?)(?:View)?_\b")  # msgspec's name of Page[...]
TAGS: Final = {
    "service": "The service itself: is it alive, is it ready, what is it.",
    "access": "Who am I, and with which tokens.",
    "tenancy": "Users, projects, members, quotas.",
    "instances": "Virtual machines, and the types that size them.",
    "images": "What instances start from, and why a site trusts it.",
    "hosts": "The machines that run instances, their pools and networks.",
    "history": "What was asked for and what happened.",
}
ABOUT: Final = """\
The native API of StratusLab. Every refusal is `application/problem+json` (RFC 9457) with a \
stable `code` and a `remedy`; docs/reference/problems.md lists the codes. Lists come in pages: \
pass `next` as `cursor`. Changes take time: the header `Operation-Id` names what to follow, or \
add `?wait=seconds`. Send an `Idempotency-Key` to repeat a request safely, and `If-Match` to \
change only what you have seen."""
STATUS_WORDS: Final = {
    200: "Done",
    201: "Made",
    202: "Accepted: it becomes true soon, or has within the time waited for",
    204: "Done; nothing to say",
}


def document(endpoints: Sequence[Endpoint], *, version: str) -> dict[str, Any]:
    """Return the whole description."""
    kinds = _kinds(endpoints)
    shown, components = msgspec.json.schema_components(kinds, ref_template=REFS)
    refs = dict(zip(kinds, shown, strict=True))
    for endpoint in endpoints:
        components.pop(endpoint.query.__name__, None)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(endpoint.path, {})
        operations[endpoint.method.lower()] = _operation(endpoint, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "StratusLab",
            "version": version,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _tidied(components),
            "responses": _responses(),
            "parameters": _parameters(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, as POST /v1/tokens makes it.",
                },
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Name and password; only to make a token.",
                },
            },
        },
    }


def document_bytes(endpoints: Sequence[Endpoint], *, version: str) -> bytes:
    """Return the whole description as indented JSON."""
    made = msgspec.json.encode(document(endpoints, version=version))
    # In JSON Schema `$` is the end of the text; Python needs to be told so.
    made = made.replace(msgspec.json.encode(END)[1:-1], b"$")
    made = PAGE_OF.sub(rb"\1Page", made)
    return msgspec.json.format(made, indent=1) + b"\n"


def _kinds(endpoints: Iterable[Endpoint]) -> list[Any]:
    kinds: list[Any] = [ProblemBody]
    for endpoint in endpoints:
        others = (kind for _, kind in endpoint.others)
        for kind in (endpoint.body, endpoint.answer, endpoint.query, *others):
            if kind is not None and kind not in kinds and kind not in (NoBody, NoQuery, RawBody):
                kinds.append(kind)
    return kinds


def _operation(endpoint: Endpoint, refs: dict[Any, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": endpoint.title,
        "description": endpoint.about,
    }
    if parameters := [
        *_path_parameters(endpoint),
        *_query_parameters(endpoint),
        *_headers(endpoint),
    ]:
        made["parameters"] = parameters
    if endpoint.uploads:
        made["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": {}}},
        }
    elif endpoint.body is RawBody:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": {}}}}
    elif endpoint.body is not None and endpoint.body is not NoBody:
        required = any(field.required for field in msgspec.structs.fields(endpoint.body))
        made["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": refs[endpoint.body]}},
        }
    made["responses"] = _answers(endpoint, refs)
    match endpoint.access:
        case Access.NONE:
            made["security"] = []
        case Access.LOGIN:
            made["security"] = [{"password": []}, {"token": []}]
        case Access.TOKEN:
            pass
    return made


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    pattern = f"^{REFERENCE_PATTERN.pattern}$"
    schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": pattern}
    return [
        {"name": name, "in": "path", "required": True, "schema": schema} for name in endpoint.parts
    ]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query is NoQuery:
        return []
    _, components = msgspec.json.schema_components([endpoint.query], ref_template=REFS)
    schema = components[endpoint.query.__name__]
    required = set(schema.get("required", ()))
    made = []
    for name, shape in schema["properties"].items():
        shape = _not_null(shape)
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": name in required}
        if about := shape.pop("description", ""):
            parameter["description"] = about
        parameter["schema"] = shape
        made.append(parameter)
    return made


def _not_null(shape: dict[str, Any]) -> dict[str, Any]:
    """A query string has no null: a parameter is there or not."""
    shape = dict(shape)
    options = [option for option in shape.pop("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1:
        shape = {**shape, **options[0]}
    elif options:
        shape["anyOf"] = options
    if shape.get("default", ...) is None:
        del shape["default"]
    return shape


def _headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = []
    if endpoint.keyed:
        names.append("IdempotencyKey")
    if endpoint.matched:
        names.append("IfMatch")
    if endpoint.uploads:
        names.append("UploadOffset")
    if "text/event-stream" in endpoint.also:
        names.append("LastEventId")
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _parameters() -> dict[str, Any]:
    def header(name: str, about: str, **schema: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
        return {
            "name": name,
            "in": "header",
            "required": False,
            "description": about,
            "schema": {"type": "string", **schema},
        }

    return {
        "IdempotencyKey": header(
            "Idempotency-Key",
            "Any text of the client's choice: the same request under the same key is carried "
            "out once and answered alike for a day.",
            pattern="^[!-~]{1,128}$",
        ),
        "IfMatch": header(
            "If-Match",
            "The ETag of what you have seen: if it has changed since, nothing is done (412).",
            pattern='^("[0-9]{1,15}(-[0-9a-f]{1,8})?"|\\*)$',
        ),
        "UploadOffset": header(
            "Upload-Offset", "Where these bytes begin; 0 if left out.", pattern="^[0-9]{1,15}$"
        ),
        "LastEventId": header(
            "Last-Event-ID",
            "The `id` of the last event seen; the stream goes on after it.",
            pattern="^[0-9]{1,19}-[0-9]{1,19}$",
        ),
    }


def _answers(endpoint: Endpoint, refs: dict[Any, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": STATUS_WORDS[endpoint.status]}
    content: dict[str, Any] = {}
    if endpoint.answer is not None:
        content[endpoint.media] = {"schema": refs[endpoint.answer]}
    elif endpoint.status != 204 and endpoint.method != "HEAD":
        json = endpoint.media == "application/json"
        content[endpoint.media] = {"schema": {} if json else {"type": "string"}}
    for media in endpoint.also:
        content[media] = {"schema": {"type": "string"}}
    if content:
        good["content"] = content
    answers = {str(endpoint.status): good}
    for status, kind in endpoint.others:
        answers[str(status)] = {
            "description": STATUS_WORDS[status],
            "content": {"application/json": {"schema": refs[kind]}},
        }
    if endpoint.name == "ready_show":
        answers["503"] = {**good, "description": "Not ready"}
    for status in sorted(_statuses(endpoint)):
        answers.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
    return answers


def _statuses(endpoint: Endpoint) -> set[int]:
    statuses = {400, 429, 500, 503} | {status_of(code) for code in endpoint.codes}
    if endpoint.access is not Access.NONE:
        statuses |= {401, 403}
    if endpoint.parts or endpoint.query is not NoQuery or endpoint.body is not None:
        statuses.add(404)
    if endpoint.keyed:
        statuses.add(409)
    if endpoint.matched:
        statuses |= {409, 412}
    if endpoint.body is not None or endpoint.uploads:
        statuses.add(413)
    return statuses


def _responses() -> dict[str, Any]:
    schema = {"$ref": REFS.format(name=ProblemBody.__name__)}
    made: dict[str, Any] = {}
    codes: dict[int, list[str]] = {}
    for code in CATALOGUE:
        codes.setdefault(status_of(code), []).append(code)
    for status, of_status in sorted(codes.items()):
        made[f"Problem{status}"] = {
            "description": "Refused: " + ", ".join(sorted(of_status)),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
    return made


def _tidied(components: dict[str, Any]) -> dict[str, Any]:
    """Sort the schemas by name and write docstrings on one line."""
    tidy: dict[str, Any] = {}
    for name in sorted(components):
        schema = components[name]
        if about := schema.get("description"):
            schema["description"] = re.sub(r"\s+", " ", about)
        tidy[name] = schema
    return tidy
