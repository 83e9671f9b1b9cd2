"""catlog loads catalogs: Scrapy spiders, a queue in PostgreSQL, whole loads, history, SQL."""
