"""Routes that start, retry and cancel loads and manage schedules."""
