"""From boto3's exceptions to one sentence of ours: which passes (TransientError), which stays (StoreError)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError

from dail_runtime.errors import DailError, StoreError, TransientError

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (in a cluster: storage.credentialsSecret)"

_CREDENTIALS = {
    "InvalidAccessKeyId": f"does not know this access key; check {_KEYS}",
    "XAdminUserNotFound": f"does not know this access key; check {_KEYS}",
    "SignatureDoesNotMatch": f"does not accept the secret key; check {_KEYS}",
    "ExpiredToken": "says that the credentials have expired; renew them and run again",
    "ExpiredTokenException": "says that the credentials have expired; renew them and run again",
    "TokenRefreshRequired": "says that the credentials have expired; renew them and run again",
    "InvalidToken": "does not accept the session token; renew the credentials, or unset AWS_SESSION_TOKEN where they need none",
    "RequestTimeTooSkewed": "says that this machine's clock is wrong; set the clock",
}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_FULL = ("StorageFull", "QuotaExceeded", "InsufficientStorage", "InsufficientCapacity")
_PASSING = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalError",
    "ServiceUnavailable",
}
_PASSING |= {"RequestLimitExceeded", "TooManyRequests", "ConditionalRequestConflict", "OperationAborted", "NoSuchUpload"}
_NO_CREDENTIALS = (
    *(boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.ProfileNotFound),
    *(boto.UnauthorizedSSOTokenError, boto.SSOError, boto.TokenRetrievalError),
)
_WRONG_REQUEST = (boto.ParamValidationError, boto.InvalidRegionError, boto.NoRegionError, boto.UnknownEndpointError)


@contextlib.contextmanager
def s3_errors(place: str, endpoint: str) -> Iterator[None]:
    """Turns boto3's exceptions in the block into a StoreError or TransientError about `place`, asked of `endpoint`."""
    try:
        yield
    except RetriesExceededError as err:
        raise s3_error(err.last_exception, place, endpoint) from err
    except (boto.ClientError, boto.BotoCoreError, ResponseParserError) as err:
        raise s3_error(err, place, endpoint) from err


def status_of(err: boto.ClientError) -> int:
    """The HTTP status that the server answered with."""
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(err: boto.ClientError) -> str:
    """S3's name of the error; the status as text where the answer had no body (HEAD)."""
    return str(err.response.get("Error", {}).get("Code", ""))


def is_missing(err: boto.ClientError) -> bool:
    """Whether the server said that there is no such object."""
    return code_of(err) == "NoSuchKey" or (status_of(err) == 404 and code_of(err) in ("404", "NotFound"))


def is_web_page(err: boto.ClientError) -> bool:
    """Whether the answer was meant for people: from some other server, or from a proxy before the real one."""
    headers = err.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("content-type", "")).startswith("text/html")


def s3_error(err: BaseException, place: str, endpoint: str) -> DailError:
    """One sentence for `err`: where, what, remedy."""
    if isinstance(err, boto.ClientError):
        return _answer(err, place, endpoint)
    if isinstance(err, ResponseParserError):
        return StoreError(f"{place}: {endpoint} is no S3 server ({_said(err)}); correct storage.endpoint")
    if isinstance(err, _NO_CREDENTIALS):
        return StoreError(f"{place}: no usable credentials ({_said(err)}); set {_KEYS}")
    if isinstance(err, boto.ConfigParseError | boto.ConfigNotFound):
        return StoreError(f"{place}: the AWS configuration of this machine is wrong ({_said(err)}); correct that file")
    if isinstance(err, boto.HTTPClientError) and isinstance(err.kwargs.get("error"), ValueError):
        # What the library said quotes the header, and with it a secret.
        return StoreError(
            f"{place}: the credentials hold a line break or another character that no request can carry; "
            f"take it out of {_KEYS}, or of AWS_SESSION_TOKEN"
        )
    if isinstance(err, boto.SSLError):
        return StoreError(f"{place}: the TLS connection to {endpoint} failed ({_said(err)}); check storage.endpoint, or set AWS_CA_BUNDLE")
    if isinstance(err, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError):
        return TransientError(f"{place}: {endpoint} cannot be reached; check storage.endpoint, the network and that the server runs")
    if isinstance(err, boto.ReadTimeoutError):
        return TransientError(f"{place}: {endpoint} does not answer; check that it is an S3 server and not overloaded, then try again")
    if isinstance(err, _WRONG_REQUEST):
        return StoreError(f"{place} is no valid address ({_said(err)}); correct storage.uri, storage.endpoint or storage.region")
    return TransientError(f"{place}: the connection to {endpoint} broke off ({_said(err)}); try again")


def _answer(err: boto.ClientError, place: str, endpoint: str) -> DailError:
    code, status = code_of(err), status_of(err)
    if is_web_page(err) and status not in (502, 503, 504):
        return StoreError(f"{place}: {endpoint} answers with a web page, so it is no S3 server; correct storage.endpoint")
    if code == "NoSuchBucket":
        return StoreError(f"{place}: {endpoint} has no such bucket; create it or correct storage.uri")
    if code in _CREDENTIALS:
        return StoreError(f"{place}: {endpoint} {_CREDENTIALS[code]}")
    if code in _REGION or status == 301:
        return StoreError(f"{place}: the bucket is in another region; set storage.region to the bucket's own")
    if any(word in code for word in _FULL) or status == 507:
        return StoreError(f"{place} cannot be written: the store or the quota is full; free space or change storage.uri")
    if status == 403:
        return StoreError(
            f"{place}: {endpoint} forbids it ({code}); grant these credentials s3:ListBucket on the bucket and "
            "s3:GetObject, s3:PutObject and s3:DeleteObject below the prefix"
        )
    if code in _PASSING or status in (408, 429) or (status >= 500 and status != 501):
        return TransientError(f"{place}: {endpoint} is out of order or overloaded ({code or status}); try again later")
    if status == 501:
        return StoreError(f"{place}: {endpoint} cannot do what dail needs ({_said(err)}); use an S3 server with conditional writes")
    return StoreError(f"{place}: {endpoint} refuses ({_said(err)}); check storage.uri and storage.endpoint")


def _said(err: BaseException) -> str:
    """What the library said, in one short line."""
    text = " ".join(str(err).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
