"""The steward: the loop that dispatches what is due, reconciles, ends what is past its deadline, prunes and sweeps."""
