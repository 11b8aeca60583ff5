"""Which Supabase project, and with which key: checked before anything is sent."""

from __future__ import annotations

import ipaddress
import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

from ledgerq.errors import ConfigurationError

LOOKS_LIKE: Final = "it looks like https://<project>.supabase.co"
WHICH_KEY: Final = "give the secret key (sb_secret_…), or the legacy service_role key: Project Settings > API Keys"
LABEL: Final = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
HOST: Final = re.compile(rf"({LABEL}\.)*{LABEL}\.?|[0-9a-f:.%a-z]*:[0-9a-f:.%a-z]*")
"""A name, whose labels may have 63 characters (RFC 1035; container networks know names with underscores), or an IPv6 address."""
SECRET_KIND: Final = "sb_secret_"  # noqa: S105 - how such keys begin
PUBLISHABLE_KIND: Final = "sb_publishable_"


@dataclass(frozen=True, slots=True)
class Project:
    """A project's address and its key."""

    url: str
    """Without a slash at the end."""
    key: str = field(repr=False)

    @classmethod
    def parse(cls, url: str, key: str) -> Project:
        """Check what can be known without asking.

        Raises:
            ConfigurationError: no such address can exist, or the key is not for servers. Neither text is repeated: the one may
                hold a password, the other is one.
        """
        return cls(_checked_url(url), _checked_key(key.strip()))

    @property
    def place(self) -> str:
        """For messages: nothing secret."""
        return f"the ledger at {self.url}"

    @property
    def takes_bearer(self) -> bool:
        """Whether the key is a token, as the legacy ones are. The new kind goes into the header `apikey` only."""
        return is_token(self.key)

    @property
    def is_on_this_machine(self) -> bool:
        """Then no proxy that the environment names leads there."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def is_token(key: str) -> bool:
    """Whether the key may be sent as a Bearer."""
    return not key.startswith(SECRET_KIND)


def _checked_url(url: str) -> str:
    url = url.strip()
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and HOST.fullmatch(parts.hostname or "") and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ConfigurationError(f"SUPABASE_URL is no address; {LOOKS_LIKE}") from None
    if not known:
        raise ConfigurationError(f"SUPABASE_URL is no address; {LOOKS_LIKE}")
    if parts.username is not None or "?" in url or "#" in url:
        raise ConfigurationError(f"SUPABASE_URL is an address and nothing else, without user or query; {LOOKS_LIKE}")
    if parts.path.rstrip("/").endswith("/rest/v1"):
        raise ConfigurationError(f"SUPABASE_URL is the project's address, without /rest/v1; {LOOKS_LIKE}")
    return parts.geturl().rstrip("/")


def _checked_key(key: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"SUPABASE_SERVICE_ROLE_KEY is no key; {WHICH_KEY}")
    if key.startswith(PUBLISHABLE_KIND):
        raise ConfigurationError(f"SUPABASE_SERVICE_ROLE_KEY is the publishable key, which is for browsers; {WHICH_KEY}")
    role = _role(key)
    if role in ("anon", "authenticated"):
        raise ConfigurationError(f"SUPABASE_SERVICE_ROLE_KEY is a key of the role {role}, which may not use the ledger; {WHICH_KEY}")
    return key


def _role(key: str) -> object:
    """What a token says of itself; whether that is true is for the project to find. None where it is no token."""
    claims = key.split(".")[1:2]
    try:
        decoded: object = json.loads(urlsafe_b64decode(claims[0] + "==")) if claims else None
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", decoded).get("role") if isinstance(decoded, dict) else None
