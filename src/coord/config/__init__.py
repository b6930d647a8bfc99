"""The options of `coord serve`: their table, where they are read from, and what a node gets of them."""

from __future__ import annotations

from coord.config.addresses import Url, parse_url, parse_urls
from coord.config.load import load
from coord.config.options import OPTIONS, QUOTA_OFF, Option
from coord.config.serve import ServeConfig

__all__ = ["OPTIONS", "QUOTA_OFF", "Option", "ServeConfig", "Url", "load", "parse_url", "parse_urls"]
