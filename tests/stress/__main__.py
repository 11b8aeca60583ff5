"""Take each protection out of the ledger's SQL in turn, and see which test notices.

    scripts/mutate_ledger                 all of them: a few minutes
    scripts/mutate_ledger --fast          the small set that every test run tries
    scripts/mutate_ledger flip verdict    those whose name contains one of the words

Exits with 1 when a mutant survives, or is noticed by chance alone (not by the test that is there for it): then a test is
missing. `tests/stress/protections` is the list.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.stress.mutants import Verdict, judge
from tests.stress.protections import MUTATIONS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--fast", action="store_true")
    asked = parser.parse_args()
    chosen = [
        mutation
        for mutation in MUTATIONS
        if (mutation.fast or not asked.fast) and (not asked.words or any(word in mutation.name for word in asked.words))
    ]
    begun = time.monotonic()
    verdicts = judge(chosen, told=tell)
    survived = sum(verdict.survived for verdict in verdicts)
    missing = without_their_test(verdicts)
    say(f"{len(verdicts)} mutants, {survived} survived, {len(missing)} without the test that is named, {time.monotonic() - begun:.0f} s")
    if missing:
        say(f"missing tests for: {', '.join(missing)}")
    return 1 if missing or not verdicts else 0


def without_their_test(verdicts: Sequence[Verdict]) -> list[str]:
    """Mutants that survived, or that only other tests happened to notice."""
    return [verdict.mutation.name for verdict in verdicts if not verdict.as_expected]


def tell(verdict: Verdict) -> None:
    if verdict.survived:
        say(f"SURVIVED  {verdict.mutation.name}: {verdict.mutation.removes}")
    else:
        by_whom = "noticed   " if verdict.as_expected else "BY CHANCE "
        say(f"{by_whom}{verdict.mutation.name}: {verdict.noticed_by[0]}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
