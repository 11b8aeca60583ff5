"""JSON Web Tokens of the project: signed with one shared secret, verified as PostgREST does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jwt

from tests.support.postgrest.refusals import bad_claims, bad_token

SKEW_SECONDS = 30
"""How far the clocks of two machines may differ."""
_ONLY_THE_SIGNATURE = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}


@dataclass(frozen=True, slots=True)
class Signer:
    secret: str

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.secret, algorithm="HS256")

    def claims_of(self, token: str) -> dict[str, Any]:
        """What the token says, if it is ours and its time has come.

        Raises:
            Refusal: PGRST301 (no token of ours) or PGRST303 (its time is over, or has not come).
        """
        claims = self._signed_claims(token)
        now = int(time.time())
        if _number(claims, "exp", now) < now - SKEW_SECONDS:
            raise bad_claims("JWT expired")
        if _number(claims, "nbf", now) > now + SKEW_SECONDS:
            raise bad_claims("JWT not yet valid")
        if _number(claims, "iat", now) > now + SKEW_SECONDS:
            raise bad_claims("JWT issued at future")
        return claims

    def _signed_claims(self, token: str) -> dict[str, Any]:
        if not token:
            raise bad_token("Empty JWT is sent in Authorization header")
        if (parts := len(token.split("."))) != 3:
            raise bad_token(f"Expected 3 parts in JWT; got {parts}")
        try:
            return jwt.decode(token, self.secret, algorithms=["HS256"], options=_ONLY_THE_SIGNATURE)
        except jwt.InvalidSignatureError as error:
            raise bad_token("No suitable key or wrong key type", "None of the keys was able to decode the JWT") from error
        except jwt.InvalidAlgorithmError as error:
            raise bad_token("Wrong or unsupported encoding algorithm", str(error)) from error
        except jwt.DecodeError as error:
            raise bad_token("JWT cryptographic operation failed") from error


def _number(claims: dict[str, Any], name: str, absent: int) -> float:
    value = claims.get(name)
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_claims(f"The JWT '{name}' claim must be a number")
    return value
