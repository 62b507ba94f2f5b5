"""The S3 fixtures for the tests of this folder."""

from tests.support.s3 import bucket, s3_server

__all__ = ["bucket", "s3_server"]
