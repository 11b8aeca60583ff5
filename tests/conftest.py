"""Real servers for every test that asks: started once per session, in a directory of their own, as any user."""

import signal

pytest_plugins = ["tests.support.servers", "tests.support.lab"]

# A shell starts what runs in its background with Ctrl-C ignored, and programs inherit that; tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
