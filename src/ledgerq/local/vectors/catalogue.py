"""The collections of a directory: making and dropping them in one step each, and their aliases.

<root>/collections/<name>/settings.json     the request that made it
<root>/collections/<name>/shard/            the engine's
<root>/collections/.new-*, .gone-*          unfinished making and dropping; removed at the next start
<root>/aliases.json
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from uuid import uuid4

import qdrant_edge as edge
import structlog

from ledgerq.local.files import write_private
from ledgerq.local.vectors import requests as rq
from ledgerq.local.vectors.collection import SPACE_KEPT, Collection, engine
from ledgerq.local.vectors.errors import Refusal, already_exists, damaged, no_collection, no_space, wrong_input
from ledgerq.local.vectors.translate import Json, shard_config

log = structlog.get_logger("ledgerq.local.vectors")
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")
"""Narrower than Qdrant's, which allows what file systems do: a name is a directory here."""


class Catalogue:
    def __init__(self, root: Path) -> None:
        """Opens every collection; what a kill left half-made or half-dropped is removed. One that cannot be opened is refused by
        itself; it can be dropped, or its files brought back."""
        self._root = root
        self._home = root / "collections"
        self._home.mkdir(parents=True, exist_ok=True)
        for leftover in self._home.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._open: dict[str, Collection] = {}
        self._damaged: dict[str, Refusal] = {}
        for directory in sorted(self._home.glob("[!.]*")):
            try:
                with engine():
                    self._open[directory.name] = _load(directory)
            except Refusal as error:
                log.warning("collection cannot be opened", collection=directory.name, error=error.message)
                self._damaged[directory.name] = damaged(directory.name, error.message)
        self._aliases = self._read_aliases()

    def get(self, name: str) -> Collection:
        target = self._aliases.get(name, name)
        found = self._open.get(target)
        if found is None:
            raise self._damaged.get(target) or no_collection(name)
        return found

    def exists(self, name: str) -> bool:
        target = self._aliases.get(name, name)
        return target in self._open or target in self._damaged

    def names(self) -> list[str]:
        return sorted({*self._open, *self._damaged})

    def create(self, name: str, request: rq.CreateCollection) -> bool:
        """Made beside and renamed: a kill leaves all of it or nothing."""
        if not NAME.fullmatch(name):
            raise wrong_input(f"collection name {name!r}: letters, digits, '_', '-', '.' and at most 200 of them")
        if self.exists(name):
            raise already_exists(name)
        free = shutil.disk_usage(self._home).free
        if free < SPACE_KEPT:
            raise no_space(free)
        unfinished = self._home / f".new-{uuid4().hex}"
        self._open[name] = _make(unfinished, self._home / name, request)
        return True

    def drop(self, name: str) -> bool:
        """Renamed first: from then on it is gone, however long the removal takes."""
        if name not in self._open and name not in self._damaged:
            return False
        self._save_aliases({alias: target for alias, target in self._aliases.items() if target != name})
        collection = self._open.pop(name, None)
        if collection is not None:
            collection.close()
        gone = self._home / f".gone-{uuid4().hex}"
        (self._home / name).rename(gone)
        self._damaged.pop(name, None)
        shutil.rmtree(gone)
        return True

    def close(self) -> None:
        for collection in self._open.values():
            collection.close()

    def aliases(self, collection: str | None = None) -> Json:
        if collection is not None:
            self.get(collection)
        pairs = [(alias, name) for alias, name in self._aliases.items() if collection in (None, name)]
        return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in pairs]}

    def change_aliases(self, request: rq.ChangeAliases) -> bool:
        """All of the actions or none."""
        changed = dict(self._aliases)
        for action in request.actions:
            self._change(changed, action)
        self._save_aliases(changed)
        return True

    def _change(self, aliases: dict[str, str], action: rq.CreateAlias | rq.DeleteAlias | rq.RenameAlias) -> None:
        match action:
            case rq.CreateAlias(create_alias=wanted):
                if wanted.collection_name not in self._open:
                    raise no_collection(wanted.collection_name)
                if wanted.alias_name in self._open:
                    raise already_exists(wanted.alias_name)
                aliases[wanted.alias_name] = wanted.collection_name
            case rq.DeleteAlias(delete_alias=wanted):
                aliases.pop(wanted.alias_name, None)
            case rq.RenameAlias(rename_alias=wanted):
                if wanted.old_alias_name not in aliases:
                    raise wrong_input(f"Alias {wanted.old_alias_name} does not exists!")
                aliases[wanted.new_alias_name] = aliases.pop(wanted.old_alias_name)

    def _read_aliases(self) -> dict[str, str]:
        try:
            return json.loads((self._root / "aliases.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def _save_aliases(self, aliases: dict[str, str]) -> None:
        if aliases != self._aliases:
            write_private(self._root / "aliases.json", json.dumps(aliases))
            self._aliases = aliases


def _make(unfinished: Path, directory: Path, request: rq.CreateCollection) -> Collection:
    try:
        (unfinished / "shard").mkdir(parents=True)
        with engine():
            edge.EdgeShard.create(str(unfinished / "shard"), shard_config(request)).close()
        write_private(unfinished / "settings.json", request.model_dump_json())
        unfinished.rename(directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return _load(directory)


def _load(directory: Path) -> Collection:
    settings = rq.CreateCollection.model_validate_json((directory / "settings.json").read_bytes())
    return Collection(directory=directory, settings=settings, shard=edge.EdgeShard.load(str(directory / "shard")))
