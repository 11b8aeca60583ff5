"""What RQ alone runs."""

import time


def nothing() -> None:
    return None


def moment() -> float:
    return time.time()
