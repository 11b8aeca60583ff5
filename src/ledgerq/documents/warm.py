"""Imported by a worker before it forks: what each of its horses would otherwise load again to process documents."""

from __future__ import annotations

from ledgerq.documents import pipeline
from ledgerq.documents.tokens import load_vocabulary

__all__ = ["pipeline"]

load_vocabulary()
