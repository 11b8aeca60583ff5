"""What stands before PostgREST in a Supabase project: it looks at the API key and says which token PostgREST gets to see.

Keys of the new kind are no tokens: the gateway puts one of their role in their place. The documentation has them in the `apikey`
header only; sent as Bearer too, as supabase-py does, they are handed on as they are, and PostgREST refuses them. `strict_bearer`
is that rule; without it a Bearer that equals the key is taken for none, as some projects are reported to do.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass

from tests.support.postgrest.messages import JSON_TYPE, Request, Response
from tests.support.postgrest.tokens import Signer

PREFIX = "/rest/v1"
_BROWSER = re.compile(r"Mozilla/|AppleWebKit/|Gecko/")


@dataclass(eq=False)
class Stopped(Exception):
    """The gateway answers itself. Its errors have no code."""

    status: int
    message: str
    hint: str | None = None

    def response(self) -> Response:
        body = {"message": self.message} | ({"hint": self.hint} if self.hint else {})
        return Response(self.status, {"Content-Type": JSON_TYPE}, json.dumps(body).encode())


@dataclass(frozen=True, slots=True)
class Gateway:
    """The project's keys: two tokens, and two of the new kind."""

    service_key: str
    anon_key: str
    secret_key: str
    publishable_key: str
    strict_bearer: bool

    @classmethod
    def opened(cls, signer: Signer, *, strict_bearer: bool) -> Gateway:
        def legacy(role: str) -> str:
            return signer.sign({"iss": "supabase", "ref": "standin", "role": role, "iat": 1_700_000_000, "exp": 4_000_000_000})

        return cls(
            service_key=legacy("service_role"),
            anon_key=legacy("anon"),
            secret_key=f"sb_secret_{secrets.token_urlsafe(24)}",
            publishable_key=f"sb_publishable_{secrets.token_urlsafe(24)}",
            strict_bearer=strict_bearer,
        )

    def admit(self, request: Request) -> tuple[Request, str | None]:
        """The request as PostgREST gets it, with paths of its own, and its Bearer token.

        Raises:
            Stopped: no key, an unknown one, a secret one from a browser, or no path of PostgREST's.
        """
        key = request.headers.get("apikey") or dict(request.query).get("apikey")
        if key is None:
            raise Stopped(401, "No API key found in request", "No `apikey` request header or url param was found.")
        behind = self._token_behind(key)
        if behind is None:
            raise Stopped(401, "Invalid API key", "Double check your Supabase `anon` or `service_role` API key.")
        if key == self.secret_key and _BROWSER.search(request.headers.get("user-agent", "")):
            raise Stopped(401, "Forbidden use of secret API key in browser", "Secret API keys are for servers only.")
        return _without_prefix(request), self._bearer(request, key, behind)

    def _token_behind(self, key: str) -> str | None:
        known = {
            self.service_key: self.service_key,
            self.anon_key: self.anon_key,
            self.secret_key: self.service_key,
            self.publishable_key: self.anon_key,
        }
        return known.get(key)

    def _bearer(self, request: Request, key: str, behind: str) -> str | None:
        header = request.headers.get("authorization")
        if header is None:
            return behind
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return behind if token == key and not self.strict_bearer else token.strip()


def _without_prefix(request: Request) -> Request:
    if request.path != PREFIX and not request.path.startswith(f"{PREFIX}/"):
        raise Stopped(404, "no Route matched with those values")
    query = tuple(pair for pair in request.query if pair[0] != "apikey")
    return Request(request.method, request.path.removeprefix(PREFIX) or "/", query, request.headers, request.body)
