"""Refusals in the shape and with the HTTP statuses of Qdrant."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is not served; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def wrong_input(message: str) -> Refusal:
    return Refusal(400, f"Wrong input: {message}")


def no_collection(name: str) -> Refusal:
    return Refusal(404, f"Not found: Collection `{name}` doesn't exist!")


def damaged(name: str, why: str) -> Refusal:
    return Refusal(500, f"Service internal error: Collection `{name}` cannot be opened ({why}); drop it, or bring its files back")


def already_exists(name: str) -> Refusal:
    return Refusal(409, f"Wrong input: Collection `{name}` already exists!")


def outside_the_subset(what: str) -> Refusal:
    return Refusal(400, f"Wrong input: {what} is not served by the local vector server: set QDRANT_URL to a Qdrant")


def no_space(free: int) -> Refusal:
    return Refusal(500, f"Service internal error: No space left on device ({free} bytes free): nothing was written")
