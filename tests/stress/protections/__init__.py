"""The protections, by subject."""

from __future__ import annotations

from typing import Final

from tests.stress.mutations import Mutation
from tests.stress.protections.documents import DOCUMENTS
from tests.stress.protections.guard import GUARD
from tests.stress.protections.jobs import JOBS
from tests.stress.protections.looks import LOOKS_AGAIN
from tests.stress.protections.realtime import REALTIME
from tests.stress.protections.runs import RUNS
from tests.stress.protections.verdicts import VERDICTS

MUTATIONS: Final[tuple[Mutation, ...]] = (*RUNS, *VERDICTS, *JOBS, *DOCUMENTS, *LOOKS_AGAIN, *GUARD, *REALTIME)
