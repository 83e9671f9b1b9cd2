"""Database URLs that catlog cannot use are refused with the remedy."""

import pytest

from catlog_scrapy.db.database_url import parse_database_url
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.exceptions import ConfigurationError


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p%40ss@host:5432/database",
        "postgres://host/database?sslmode=require",
        "postgresql+psycopg2:///database?host=/tmp&port=5433",
        "postgresql:///database?host=one:5432&host=two:5433&target_session_attrs=read-write",
        "postgresql://host/database?application_name=mine&connect_timeout=3",
    ],
)
def test_url_with_parameters_of_libpq_is_used(url: str) -> None:
    assert parse_database_url(url).database == "database"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://h/db?nope=1", "unknown parameter 'nope'; remove it"),
        ("postgresql://h/db?sslmode=require&SSLMODE=x", "unknown parameter 'SSLMODE'"),
        ("postgresql://h/db?connection_factory=x", "unknown parameter 'connection_factory'"),
        ("postgresql://h/db?dsn=host%3Dx", "unknown parameter 'dsn'"),
        ("postgresql://h/db?sslmode%20=x", "unknown parameter 'sslmode '"),
        ("postgresql://h/db?options=-csearch_path%3Dx", "'options', which catlog sets itself"),
        ("postgresql://h/db?client_encoding=latin1", "'client_encoding', which catlog sets"),
        ("postgresql://h/db?sslmode=a&sslmode=b", "'sslmode' twice; keep one of the two"),
        ("postgresql://h:port/db", "a port that is not a number"),
        ("postgresql://a:1,b:2/db", "several hosts in libpq's form; write them as parameters"),
        ("mysql://h/db", "names mysql, but catlog needs PostgreSQL"),
        ("nonsense", "is not a valid database URL; use postgresql://"),
    ],
)
def test_unusable_url_is_refused_in_one_sentence(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make_engine(url)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
