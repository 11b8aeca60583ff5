"""Real servers for every test that asks: started once per session, in a directory of their own, as any user."""

pytest_plugins = ["tests.support.servers", "tests.support.lab"]
