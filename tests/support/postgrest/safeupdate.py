"""`safeupdate`, which a Supabase project loads for the Data API: no UPDATE and no DELETE without WHERE, in functions neither.

The extension is a library that this PostgreSQL does not have. What it looks at, the parse tree of every statement when it is
analysed, a session can ask to see: `debug_print_parse` sends the trees of all statements to the client, also of those inside
functions. So an unsafe one is known before its transaction is committed, and is rolled back with the extension's error. Like
the extension this sees a statement when it is planned, so a session that planned one must not be used again.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import sql
from psycopg.errors import Diagnostic

from tests.support.postgrest.refusals import Refusal
from tests.support.postgrest.sqlstates import status_of

_SETTINGS = sql.SQL("""
    select set_config('debug_print_parse', 'on', false), set_config('debug_pretty_print', 'off', false),
      set_config('client_min_messages', 'log', false)
""")
_TOKEN = re.compile(r"\\.|\{(?P<opened>\w+)|(?P<closed>\})|:commandType\s+(?P<command>\d)|:quals\s+(?P<quals><>)", re.DOTALL)
_CHANGE = re.compile(r":commandType\s+[24]")
_UNSAFE = {"2": "UPDATE", "4": "DELETE"}
"""PostgreSQL's CmdType."""


class Watch:
    """Sees every statement that a connection analyses."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.unsafe: str | None = None
        """What was tried without WHERE."""
        connection.execute(_SETTINGS)
        connection.add_notice_handler(self._see)

    def check(self) -> None:
        """Raises:
        Refusal: an UPDATE or DELETE without WHERE was analysed.
        """
        if self.unsafe is not None:
            message = f"{self.unsafe} requires a WHERE clause"
            raise Refusal(status_of("21000", message), "21000", message)

    def _see(self, notice: Diagnostic) -> None:
        if notice.message_primary == "parse tree:" and self.unsafe is None:
            self.unsafe = unsafe_command(notice.message_detail or "")


def unsafe_command(tree: str) -> str | None:
    """UPDATE or DELETE, if this parse tree, or a query inside it, is one without WHERE."""
    if not _CHANGE.search(tree):
        return None
    open_nodes: list[str] = []
    commands: list[str] = []
    for token in _TOKEN.finditer(tree):
        if token["opened"]:
            open_nodes.append(token["opened"])
            commands.append("")
        elif token["closed"]:
            open_nodes.pop()
            commands.pop()
        elif token["command"]:
            commands[-1] = token["command"]
        elif token["quals"] and open_nodes[-2:] == ["QUERY", "FROMEXPR"] and commands[-2] in _UNSAFE:
            return _UNSAFE[commands[-2]]
    return None
