"""Users, keys, tokens, audit, idempotency."""
