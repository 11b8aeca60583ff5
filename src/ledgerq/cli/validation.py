"""What pydantic refuses, in one line."""

from __future__ import annotations


def describe_validation(error: Exception) -> str:
    """One line for a pydantic ValidationError: which setting, what was given, what is wanted. Secrets stay out."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or error.title}: {first['msg']}"
