"""A settings module of one's own for the stock worker: `rq worker -S json -c my_rq_settings`.

RQ imports it before its first fork, so this is the place to load what every horse would otherwise load anew: models, big
tables, slow modules. Open no connection here: a forked process must not share one.
"""

from __future__ import annotations

import decimal  # stands for the slow modules that your handlers need

from ledgerq.rq_settings import REDIS_URL

__all__ = ["QUEUES", "REDIS_URL"]

QUEUES = ["reports"]  # one queue per process

decimal.getcontext().prec = 28
