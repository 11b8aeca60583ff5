"""What ledgerq runs: the same two functions as handlers."""

import time

from ledgerq import Completed, Handlers, Task

handlers = Handlers()


@handlers.handler("nothing")
def nothing(_task: Task) -> None:
    return None


@handlers.handler("moment")
def moment(_task: Task) -> Completed:
    return Completed(time.time())
