"""One Valkey server: what RQ's guarantees rest on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from ledgerq.errors import LocalStackError
from ledgerq.local.valkey import ValkeyServer
from tests.support.processes import working_on
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes


def ask(url: str, question: Callable[[redis.Redis], object]) -> object:
    with redis.Redis.from_url(url) as client:
        return question(client)


def test_never_evicts_and_keeps_everything(valkey: ValkeyServer) -> None:
    settings = ask(valkey.url, lambda client: client.config_get("maxmemory-policy", "appendonly", "appendfsync", "bind"))
    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "bind": "127.0.0.1"}


def test_password_is_needed_and_private(valkey: ValkeyServer) -> None:
    with pytest.raises(redis.AuthenticationError):
        ask(f"redis://127.0.0.1:{valkey.port}/0", lambda client: client.ping())
    password = valkey.url.split(":")[2].split("@")[0]
    config = valkey.data_dir / "valkey.conf"
    assert password in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o600
    assert not [line for line in working_on(valkey.data_dir) if password in line]


@pytest.mark.parametrize("command", [["DEBUG", "SLEEP", "0"], ["CONFIG", "SET", "dir", "/tmp"]])
def test_dangerous_commands_are_off(valkey: ValkeyServer, command: list[str]) -> None:
    with pytest.raises(redis.ResponseError, match=r"not allowed|protected"):
        ask(valkey.url, lambda client: client.execute_command(*command))


def test_recovers_from_kill_and_keeps_its_data(server_dir: Path) -> None:
    with ValkeyServer(server_dir / "valkey") as server:
        ask(server.url, lambda client: client.rpush("list", "a", "b"))
        assert server.identity
        os.kill(server.identity.pid, signal.SIGKILL)
        eventually(lambda: not server.is_alive())
        server.start()
        assert ask(server.url, lambda client: client.lrange("list", 0, -1)) == [b"a", b"b"]
    assert working_on(server_dir) == []


def test_directory_in_use_is_refused(valkey: ValkeyServer) -> None:
    assert valkey.identity
    with pytest.raises(LocalStackError, match=rf"in use by the Valkey with pid {valkey.identity.pid}"):
        ValkeyServer(valkey.data_dir).start()


def test_directory_with_a_space_and_quotes(server_dir: Path) -> None:
    with ValkeyServer(server_dir / 'a "strange" name') as server:
        assert ask(server.url, lambda client: client.ping()) is True


def test_port_that_is_taken_is_in_the_message(server_dir: Path, valkey: ValkeyServer) -> None:
    with pytest.raises(LocalStackError, match="in use"):
        ValkeyServer(server_dir / "valkey", port=valkey.port).start()
    assert working_on(server_dir) == []
