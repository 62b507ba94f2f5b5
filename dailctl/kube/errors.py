"""From an answer of the API server to an exception with one sentence: what was asked, what is wrong, what to do."""

from __future__ import annotations

from typing import Any

from dail_runtime.errors import ClusterError, DailError, TransientError


class ApiError(ClusterError):
    """The API server refused a request, and would again."""

    def __init__(self, sentence: str, status: int = 0, reason: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        """HTTP status."""
        self.reason = reason
        """Kubernetes' name of the error (`NotFound`, `Invalid`)."""


class NotFound(ApiError):
    """There is no such object, namespace or API."""


class Conflict(ApiError):
    """Another version of the object is there than the request assumed."""


class Unauthorized(ApiError):
    """The credentials are not accepted."""


class Forbidden(ApiError):
    """The user has no right to it."""


class Invalid(ApiError):
    """The object is not what its API takes."""


class Gone(ApiError):
    """The resource version is too old to watch from; list anew."""


class Overloaded(TransientError):
    """The API server, or what is before it, is out of order or has too much to do."""

    def __init__(self, sentence: str, seconds: float) -> None:
        super().__init__(sentence)
        self.seconds = seconds
        """So long it asks to be left alone (Retry-After)."""


KINDS: dict[int, type[ApiError]] = {400: Invalid, 403: Forbidden, 404: NotFound, 405: NotFound, 409: Conflict, 410: Gone, 422: Invalid}
PASSING = (408, 429, 500, 502, 503, 504)


def api_error(status: int, body: dict[str, Any], asked: str, user: str, retry_after: str | None = None) -> DailError:
    """The exception for an answer that is no success.

    Args:
        status: HTTP status.
        body: the answer's `Status` object ({} where it was none).
        asked: what was asked, as `create jobs.batch "x" in namespace ml`.
        user: who asks, for the remedy.
        retry_after: the header of that name.
    """
    reason = str(body.get("reason") or "")
    message = " ".join(str(body.get("message") or f"HTTP {status}").split())
    if len(message) > 600:
        message = f"{message[:597]}..."
    if 300 <= status < 400:
        sentence = f"cannot {asked}: the answer leads elsewhere (HTTP {status}), so that is no Kubernetes API server; check the kubeconfig"
        return ApiError(sentence, status, reason)
    if status == 401:
        sentence = f"cannot {asked}: the cluster does not accept the credentials of {user}; renew them and try again"
        return Unauthorized(sentence, status, reason)
    if status == 403:
        return Forbidden(_forbidden(message, asked, user), status, reason)
    if status == 409 and "being deleted" in message:
        return TransientError(f"cannot {asked}: an object of that name is still being deleted; try again in a moment")
    if status == 404 and message.startswith("namespaces "):
        return NotFound(f"cannot {asked}: {message}; create the namespace, or choose another with -n", status, reason)
    if status == 404 and reason != "NotFound":
        return NotFound(f"cannot {asked}: the cluster has no such API ({message})", status, reason)
    if status in PASSING and reason not in ("Invalid", "Forbidden", "NotFound"):
        # It may also be a date, which API servers never send.
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        return Overloaded(f"cannot {asked}: the API server is out of order or overloaded ({message}); try again later", seconds)
    return KINDS.get(status, ApiError)(f"cannot {asked}: {message}", status, reason)


def _forbidden(message: str, asked: str, user: str) -> str:
    if "is attempting to grant RBAC permissions not currently held" in message:
        return f"cannot {asked}: {user} may only grant rights that {user} has; ask an administrator for them ({_after(message, 'held')})"
    if "exceeded quota" in message or "violates PodSecurity" in message or "admission webhook" in message:
        return f"cannot {asked}: {_after(message, 'is forbidden')}"
    return f"cannot {asked}: {user} has no right to; ask an administrator of the cluster for it ({message})"


def _after(message: str, words: str) -> str:
    return (message.partition(words)[2] or message).strip(" :;\n")
