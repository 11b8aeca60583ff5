"""Sending runs to RQ and observing them there. RQ only carries the message; what is true is in the ledger."""
