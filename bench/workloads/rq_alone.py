"""Settings of the worker that runs RQ alone; the function is imported before the fork, as ours is."""

import os

import rq_alone_jobs  # noqa: F401 - loaded here, so that no horse has to

REDIS_URL = os.environ["REDIS_URL"]
