"""Generation of an operation: provider entry, spider, saved page and failing test."""

from catlog_scrapy.scaffold.checking import check_files, check_spider
from catlog_scrapy.scaffold.files import SUFFIXES, TEMPLATES, Generator, kind_of, text_of
from catlog_scrapy.scaffold.target import ProjectLayout, check_name, find_target
from catlog_scrapy.scaffold.writing import write_all

__all__ = [
    "SUFFIXES",
    "TEMPLATES",
    "Generator",
    "ProjectLayout",
    "check_files",
    "check_name",
    "check_spider",
    "find_target",
    "kind_of",
    "text_of",
    "write_all",
]
