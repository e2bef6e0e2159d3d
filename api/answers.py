"""Answers: JSON in which every number keeps its digits."""

from collections.abc import Mapping

import simplejson
from flask import Response


def json_answer(
    document: object,
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> Response:
    """A response of UTF-8 JSON. Decimals are written as they came; NaN and Infinity raise ValueError."""
    # "replace": a detail may quote half of a surrogate pair that a client has sent.
    body = simplejson.dumps(document, use_decimal=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace") + b"\n", status, dict(headers or {}), content_type=content_type)
