"""From a document's bytes to points in Qdrant, and back from a question to hits.

load -> clean -> chunk -> embed what is missing -> store under a generation; the ledger makes that generation live. What
this package needs of the ledger and of storage are the protocols in `ports`; it knows neither RQ nor Redis.
"""
