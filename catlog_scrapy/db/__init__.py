"""PostgreSQL: engine, embedded server, connection watchdog, migrations."""
