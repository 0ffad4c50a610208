"""Keeping passwords and keys out of what is written down."""

import os
import re
from typing import Any

NAMES = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|(ACCESS|API|CUSTOMER)_?KEY")
SHORTEST = 8  # a shorter value of such a variable may be any word


def scrub(value: Any) -> Any:
    """``value`` without the secrets in its strings: passwords and queries of URLs, and the values
    of environment variables that are named like secrets.

    >>> scrub({"source": "https://me:pw@host/a.csv?X-Amz-Signature=1"})
    {'source': 'https://***@host/a.csv?***'}
    """
    if isinstance(value, dict):
        return {key: scrub(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(item) for item in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"(\w+://)[^/@\s]*@", r"\1***@", value)
    value = re.sub(r"(https?://[^\s?#]+)\?[^\s'\")]+", r"\1?***", value)
    for name, secret in os.environ.items():
        if len(secret) >= SHORTEST and NAMES.search(name.upper()):
            value = value.replace(secret, "***")
    return value
