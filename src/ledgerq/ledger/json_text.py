"""JSON as Postgres can store it, and where a value is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from ledgerq.errors import InvalidInput
from ledgerq.models import Json


def encode(arguments: Mapping[str, Json], *, doing: str) -> bytes:
    """The request as UTF-8 JSON.

    NUL, NaN and infinities pass: looking for them here would cost every call, and the database refuses them; `complain`
    then says where they are.

    Raises:
        InvalidInput: names the first value that JSON cannot say.
    """
    try:
        return to_json(arguments)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise complain(arguments, doing=doing, otherwise=str(error)) from error


def decode(text: bytes | str) -> Json:
    """The answer of a function."""
    return from_json(text)


def complain(arguments: object, *, doing: str, otherwise: str) -> InvalidInput:
    """An error that names the first value that cannot be stored, or says `otherwise` when none is found."""
    found = find_unstorable(arguments)
    return InvalidInput(f"{doing}: {found or otherwise}")


def find_unstorable(value: object) -> str | None:
    """Says where the first value is that Postgres cannot store as jsonb, and why; None when there is none."""
    return next(_problems(value, ""), None)


_DEEPEST = 200
"""Levels of nesting. Far more than data has, and safely within the recursion of every JSON reader on the way."""


def _problems(value: object, path: str, depth: int = 0) -> Iterator[str]:
    if depth > _DEEPEST:
        yield f"{path} is nested deeper than {_DEEPEST} levels"
    elif isinstance(value, str):
        yield from _text_problems(value, path)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is {value}, which JSON cannot say"
    elif isinstance(value, Mapping):
        for key, inner in cast("Mapping[object, object]", value).items():
            yield from _problems(key, f"a key of {path or 'the request'}", depth)
            yield from _problems(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for position, inner in enumerate(cast("Sequence[object]", value)):
            yield from _problems(inner, f"{path}[{position}]", depth + 1)
    elif value is not None and not isinstance(value, bool | int | float):
        yield f"{path} is a {type(value).__name__}, which JSON cannot say; give text, a number, a list or an object"


def _text_problems(text: str, path: str) -> Iterator[str]:
    if "\x00" in text:
        yield f"{path} contains NUL (\\u0000), which Postgres cannot store"
    if not _is_unicode(text):
        yield f"{path} contains half of a surrogate pair, which is no Unicode text"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
