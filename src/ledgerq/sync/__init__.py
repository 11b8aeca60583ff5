"""The status sync: observe RQ, decide by a pure table, apply under a fence."""
