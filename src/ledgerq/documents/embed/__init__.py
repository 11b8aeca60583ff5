"""Embedding: texts to vectors, offline or by a provider."""

from __future__ import annotations

import re

from ledgerq.documents.embed.base import Embedded, Embedder, Vector
from ledgerq.errors import ConfigurationError

__all__ = ["Embedded", "Embedder", "Vector", "make_embedder"]

DEFAULT_MODEL = "text-embedding-3-small"
_SPECIFICATION = re.compile(r"openai:(?P<model>[^@\s]+)(?:@(?P<dimensions>\d{1,5}))?")


def make_embedder(specification: str | None = None, *, openai_api_key: str | None = None, openai_base_url: str | None = None) -> Embedder:
    """The embedder of that name: `offline`, `openai:<model>` or `openai:<model>@<dimensions>`.

    Without a name: OpenAI's small model if there is a key, else offline.

    Raises:
        ConfigurationError: no such embedder, or no key for it.
    """
    chosen = specification or (f"openai:{DEFAULT_MODEL}" if openai_api_key else "offline")
    if chosen == "offline":
        from ledgerq.documents.embed.offline import OfflineEmbedder

        return OfflineEmbedder()
    found = _SPECIFICATION.fullmatch(chosen)
    if found is None:
        raise ConfigurationError(f"embedder {chosen!r}: write 'offline', 'openai:<model>' or 'openai:<model>@<dimensions>'")
    if not openai_api_key:
        raise ConfigurationError(f"embedder {chosen!r} needs OPENAI_API_KEY")
    from ledgerq.documents.embed.openai import OpenAIEmbedder

    dimensions = int(found["dimensions"]) if found["dimensions"] else None
    return OpenAIEmbedder(found["model"], api_key=openai_api_key, base_url=openai_base_url, dimensions=dimensions)
