"""Users, API keys, refresh tokens, log-in limits, audit log, idempotency keys."""
