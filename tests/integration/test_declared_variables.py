"""Warnings about variables that are named after a provider."""

from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.declarations.variables import unmatched_variables
from tests.support.factories import given_a_provider, sql


def test_variables_that_no_provider_reads_are_reported(engine: Engine) -> None:
    given_a_provider(engine, "my-shop")
    sql(engine, """UPDATE catlog.provider SET secrets = '["api_key"]' RETURNING name""")
    settings = Settings({"CATLOG_BASE_URL_MY_SHOP": "http://x", "CATLOG_BASE_URL_MY_SHOPP": "x"})
    environment = [
        "CATLOG_LEASE",
        "CATLOG_SECRET_MY_SHOP_API_KEY",
        "CATLOG_SECRET_MY_SHOP_APIKEY",
        "CATLOG_SECRET_OTHER",
        "PATH",
    ]
    what = "does not match a declared provider or secret"
    assert unmatched_variables(engine, settings, environment) == [
        f"CATLOG_BASE_URL_MY_SHOPP {what}; did you mean CATLOG_BASE_URL_MY_SHOP?",
        f"CATLOG_SECRET_MY_SHOP_APIKEY {what}; did you mean CATLOG_SECRET_MY_SHOP_API_KEY?",
        f"CATLOG_SECRET_OTHER {what}; correct the name, or unset it",
    ]
    assert unmatched_variables(engine, settings, ["CATLOG_SECRET_MY_SHOP_API_KEY"]) == [
        f"CATLOG_BASE_URL_MY_SHOPP {what}; did you mean CATLOG_BASE_URL_MY_SHOP?"
    ]
