"""The exception tree: one class per kind of trouble, each with its HTTP status and OpenAI wire form.

Nothing here knows HTTP libraries; `basert.http.app` turns any BasertError into a response, the command line
turns it into one sentence on stderr and exit status 1 (usage errors: 2).

BasertError                     500
├── InvalidRequest              400  a field of the request is wrong
│   └── ContextLengthExceeded   400  prompt longer than the model's context
├── Unauthorized                401
├── Forbidden                   403
├── NotFound                    404
│   └── ModelNotFound           404
├── MethodNotAllowed            405
├── Conflict                    409
├── RequestTimeout              408
├── PayloadTooLarge             413
├── HeadersTooLarge             431
├── Overloaded                  429  the queue is full; Retry-After
├── Unavailable                 503  model loading, engine restarting, draining; Retry-After
├── EngineFailed                500  the engine died or failed while this request ran
├── NotInstalled            501  packages of one of basert's extras are not on this host
├── BundleError                      a bundle is missing, broken, or drifted
├── ExportError                      an export cannot start or go on
│   └── ParityError                  the parity gate said no
└── ConfigError                      a flag, variable or file entry is wrong
"""

from __future__ import annotations

from typing import Any, ClassVar


class BasertError(Exception):
    """Base of every error a user can meet. `str(error)` is one sentence that names the mend."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    should_retry: ClassVar[bool | None] = None  # False sends `x-should-retry: false`

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after = retry_after  # seconds

    def wire(self) -> dict[str, Any]:
        """OpenAI's error object: all four keys, always."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(BasertError):
    status = 400
    type = "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    default_code = "context_length_exceeded"


class Unauthorized(BasertError):
    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class Forbidden(BasertError):
    status = 403
    type = "permission_error"


class NotFound(BasertError):
    status = 404
    type = "invalid_request_error"


class ModelNotFound(NotFound):
    default_code = "model_not_found"


class MethodNotAllowed(BasertError):
    status = 405
    type = "invalid_request_error"


class RequestTimeout(BasertError):
    status = 408
    type = "timeout_error"
    default_code = "request_timeout"
    should_retry = False  # the same request would take as long again


class Conflict(BasertError):
    status = 409
    type = "invalid_request_error"


class PayloadTooLarge(BasertError):
    status = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class HeadersTooLarge(BasertError):
    status = 431
    type = "invalid_request_error"


class Overloaded(BasertError):
    status = 429
    type = "rate_limit_error"
    default_code = "queue_full"


class Unavailable(BasertError):
    status = 503
    type = "service_unavailable_error"


class EngineFailed(BasertError):
    status = 500
    type = "server_error"
    default_code = "engine_failed"


class NotInstalled(BasertError):
    status = 501
    type = "server_error"
    default_code = "not_installed"
    should_retry = False  # nothing installs itself


class BundleError(BasertError):
    """A bundle that is missing, incomplete, altered, or that no longer answers as it did at export."""


class ExportError(BasertError):
    """An export that cannot start or go on; nothing half-made is left behind."""


class ParityError(ExportError):
    """The exported graph is further from the reference than the limits allow."""


class ConfigError(BasertError):
    """A flag, an environment variable or an entry of the configuration file is wrong."""
