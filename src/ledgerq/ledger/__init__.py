"""The ledger as Python sees it: one typed method per SQL function, over one transport or another."""
