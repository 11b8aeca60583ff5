"""What brings documents in: where their bytes are."""
