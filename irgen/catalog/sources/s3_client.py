"""Set up access to buckets: credentials, patience, customer's keys."""

import base64
import binascii
import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import boto3
from botocore import exceptions as botocore
from botocore.config import Config

from irgen.catalog.sources.remote import flatten
from irgen.errors import SourceError

CUSTOMER_KEY = "IRGEN_SSE_CUSTOMER_KEY"  # 32 bytes in base64
TRANSFERS = 4  # parts of a large file on their way at once


@dataclass(frozen=True, kw_only=True)
class Client:
    """Access to buckets, for any number of threads. `payer` goes with every call, `reading` with
    those on an object's content. `uploader` is a boto3 client that tries again by itself."""

    boto: Any = field(repr=False)
    uploader: Any = field(repr=False)
    retries: int
    payer: dict[str, str]
    reading: dict[str, Any] = field(repr=False)


def connect(
    endpoint: str = "",
    *,
    requester_pays: bool = False,
    customer_key: bool = False,
    connections: int = 8,
    retries: int = 12,
) -> Client:
    """Return a client of AWS, or of the S3 service at `endpoint` (http://…); it sends nothing yet.

    `customer_key`: objects are encrypted with the key in the environment's IRGEN_SSE_CUSTOMER_KEY.
    `retries`: tries after the first. Raises SourceError if what boto3 finds configured, or the key,
    is not valid.
    """
    # Other services than Amazon's may not know its newer checksums of uploads; they all check the
    # signature of the body.
    plain: Any = {
        "request_checksum_calculation": "when_required",
        "s3": {"payload_signing_enabled": True},
    }
    config = Config(
        # botocore stops all retries of a client after a hundred: too few for many connections.
        retries={"total_max_attempts": 1, "mode": "standard"},
        response_checksum_validation="when_required",
        max_pool_connections=max(connections, TRANSFERS),
        connect_timeout=10,
        read_timeout=60,
        **(plain if endpoint else {}),
    )
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": _read_key()} if customer_key else {}
    payer = {"RequestPayer": "requester"} if requester_pays else {}
    patient = Config(retries={"total_max_attempts": retries + 1, "mode": "standard"})
    make_client = partial(boto3.session.Session().client, "s3", endpoint_url=endpoint or None)
    try:
        boto, uploader = make_client(config=config), make_client(config=config.merge(patient))
    except (botocore.BotoCoreError, ValueError) as error:
        raise SourceError(
            f"S3 cannot be set up ({flatten(error)}); check AWS_PROFILE, AWS's configuration files "
            "and the endpoint"
        ) from None
    return Client(boto=boto, uploader=uploader, retries=retries, payer=payer, reading=payer | key)


def _read_key() -> bytes:
    try:
        key = base64.b64decode(os.environ.get(CUSTOMER_KEY, ""), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise SourceError(
            f"download: customer_key: the environment's {CUSTOMER_KEY} does not hold 32 bytes in "
            "base64; set it, or customer_key to false"
        )
    return key
