"""The `Prefer` header. What is no preference is ignored, or refused where the request asks for that; what the stand-in does
not know it refuses always.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.postgrest.messages import Request
from tests.support.postgrest.refusals import bad_preferences, unknown_to_the_stand_in

_KNOWN = {"return=representation", "return=minimal", "count=exact", "handling=strict", "handling=lenient"}
_REAL = {
    "return=headers-only", "count=planned", "count=estimated", "resolution=merge-duplicates", "resolution=ignore-duplicates",
    "tx=commit", "tx=rollback", "missing=default", "missing=null",
}  # fmt: skip
"""Preferences of PostgREST that have no use here, beside `timezone=` and `max-affected=`."""


@dataclass(frozen=True, slots=True)
class Preferences:
    counted: bool
    represented: bool
    applied: str
    """What the answer says of them; empty for none."""


def preferences_of(request: Request, *, writes: bool) -> Preferences:
    """`writes`: to a table; only there is a representation a matter of choice.

    Raises:
        Refusal: PGRST122, an unknown one with `handling=strict`.
    """
    given = [one for part in request.headers.get("prefer", "").split(",") if (one := part.strip())]
    for one in given:
        if one in _REAL or one.startswith(("timezone=", "max-affected=")):
            raise unknown_to_the_stand_in(f"Prefer: {one}")
    unknown = [one for one in given if one not in _KNOWN]
    if unknown and "handling=strict" in given:
        raise bad_preferences(unknown)
    applied = [one for one in given if one in _KNOWN and (writes or not one.startswith("return="))]
    return Preferences("count=exact" in given, "return=representation" in given, ", ".join(applied))
