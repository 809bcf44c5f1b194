"""What `openapi.json` says of a route: its parts, its options and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gancolor.server import problems
from gancolor.server.uploads import PartRule

_PART_WORDS = {
    "film": "The film, a file of any kind that gancolor reads.",
    "keys": "A frame in your own colours, its file named by its time in seconds, such as"
    " 000012.480.png; may be given several times.",
    "picture": "The picture, a file of any kind that gancolor reads.",
    "reference": "A picture in colour that shows the same things; may be given several times.",
    "mask": "Colour only where this picture is white, or opaque.",
    "hints": "Colours that are known: a layer that is opaque where they are, or a .csv or .json file.",
    "x": "The column of the place, in pixels of the upright picture from 0.",
    "y": "Its row.",
    "options": "A JSON object.",
}


_PROBLEM: dict[str, Any] = {"content": {problems.MEDIA_TYPE: {}}}
ANSWERS_OF_GET: dict[int | str, dict[str, Any]] = {
    200: {"description": "as told"},
    401: {"description": "no user of --auth-file", **_PROBLEM},
}
ANSWERS_OF_JOB: dict[int | str, dict[str, Any]] = {
    **ANSWERS_OF_GET,
    404: {"description": "there is no such job, or it is over", **_PROBLEM},
    409: {"description": "the film is not done", **_PROBLEM},
}
ANSWERS_OF_RESULTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "the same came before"},
    201: {"description": "they are kept"},
    409: {"description": "others of this participant are kept", **_PROBLEM},
    422: {"description": "they are of another study, or not whole", **_PROBLEM},
    429: {"description": "too many at once; Retry-After says when to come back", **_PROBLEM},
    507: {"description": "the study has as many participants as it may have", **_PROBLEM},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the body is torn, or has other parts", **_PROBLEM},
    401: {"description": "no user of --auth-file", **_PROBLEM},
    403: {"description": "a browser sent it for another site's page", **_PROBLEM},
    408: {"description": "it arrived too slowly", **_PROBLEM},
    413: {"description": "too many bytes or pixels", **_PROBLEM},
    415: {"description": "no multipart/form-data", **_PROBLEM},
    422: {
        "description": "the picture or an option is wrong, in the command line's words",
        **_PROBLEM,
    },
    429: {"description": "the line is full; Retry-After says when to come back", **_PROBLEM},
    500: {"description": "a fault of the server", **_PROBLEM},
    501: {"description": "the server lacks an extra that this kind of file needs", **_PROBLEM},
    503: {"description": "it took too long", **_PROBLEM},
    507: {"description": "the server's disk is full", **_PROBLEM},
}


def described(
    parts: Mapping[str, PartRule],
    options: dict[str, Any],
    required: tuple[str, ...] = (),
    *,
    first: str = "picture",
    status: int = 200,
) -> dict[str, Any]:
    """What openapi.json says of a route that takes these parts and options."""
    properties: dict[str, Any] = {}
    for name, rule in parts.items():
        words = {"description": _PART_WORDS[name]}
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        if rule.most > 1:
            properties[name] = {"type": "array", "items": file, "maxItems": rule.most, **words}
        else:
            properties[name] = {**(file if rule.most else {"type": "number"}), **words}
    properties["options"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": options,
        "description": _PART_WORDS["options"],
    }
    schema = {"type": "object", "required": [first, *required], "properties": properties}
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    answers = {status: {"description": "as told"}, **_ANSWERS}
    return {
        "responses": answers,
        "status_code": status,
        "openapi_extra": {"requestBody": body},
    }
