"""Working on a run inside a horse: the runner, the keeper beside it, and what a handler is given."""
