"""The signature of S3 requests: AWS's own worked example."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from kvloop.shared_cache.backends.nixl.s3_signature import (
    Credentials,
    query_string,
    signed_headers,
)

# "Example: GET Bucket (List Objects)" of the S3 API reference, Signature Version 4.
EXAMPLE = Credentials(
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "", "us-east-1"
)
HOST = "examplebucket.s3.amazonaws.com"
QUERY = {"max-keys": "2", "prefix": "J"}
WHEN = datetime(2013, 5, 24, tzinfo=UTC)
SIGNATURE = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"


def test_the_signature_is_that_of_the_published_example() -> None:
    headers = signed_headers(EXAMPLE, "GET", HOST, "/", QUERY, b"", WHEN)
    assert headers["authorization"].endswith(f"Signature={SIGNATURE}")
    assert (
        "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
        in (headers["authorization"])
    )


def test_the_time_is_signed_in_utc() -> None:
    elsewhere = WHEN.astimezone(timezone(timedelta(hours=9)))
    headers = signed_headers(EXAMPLE, "GET", HOST, "/", QUERY, b"", elsewhere)
    assert headers["authorization"].endswith(SIGNATURE)


def test_a_session_token_is_sent_and_signed() -> None:
    headers = signed_headers(
        EXAMPLE._replace(session_token="temporary"), "GET", HOST, "/", QUERY, b"", WHEN
    )
    assert headers["x-amz-security-token"] == "temporary"
    assert "x-amz-security-token" in headers["authorization"]


def test_a_query_is_sorted_and_quoted_as_aws_wants_it() -> None:
    assert query_string({"b": "x y/z", "a": "1+2~"}) == "a=1%2B2~&b=x%20y%2Fz"


def test_credentials_show_nothing() -> None:
    assert repr(EXAMPLE) == "Credentials(***)" and "wJal" not in f"{EXAMPLE}"
