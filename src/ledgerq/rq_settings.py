"""Settings for the stock worker: `rq worker -S json -c ledgerq.rq_settings processing`.

RQ imports this module before it forks its first horse, so everything heavy is loaded here once. The address of Redis comes from
the environment, since command lines are public. The serializer can only be given as a flag.
"""

from __future__ import annotations

from ledgerq.execution.preload import preload
from ledgerq.settings import Settings
from ledgerq.worker import parts_from_environment

_settings = Settings()

REDIS_URL = _settings.redis_dsn
QUEUES = [_settings.queue]
preload(parts_from_environment())
