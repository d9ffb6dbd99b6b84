"""Azure's long-running operations, asked step by step: they can be stopped, and polls are retried.

https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.core.polling.base_polling import BadResponse, BadStatus
from azure.mgmt.core.polling.arm_polling import ARMPolling

from goldimg.errors import PublishFailed
from goldimg.publish.azure.faults import call
from goldimg.publish.job import Session

INTERVAL = 5.0  # seconds between two questions, where Azure names none


class Stepped(ARMPolling):
    """Polls only when told to, where the SDK's own polls in a thread that nobody can stop."""

    def run(self) -> None:
        """The poller's thread has nothing to do."""

    def step(self) -> None:
        """Asks once how the operation is."""
        try:
            self.update_status()
        except (BadStatus, BadResponse) as error:
            answer = self._pipeline_response.http_response
            raise HttpResponseError(message=str(error), response=answer, error=error) from error

    def conclude(self) -> None:
        """After the end: HttpResponseError with the service's words where it failed."""
        super().run()

    @property
    def delay(self) -> float:
        """Seconds until it is worth asking again."""
        told = self._pipeline_response.http_response.headers.get("Retry-After", "")
        return float(told) if str(told).isdecimal() else INTERVAL


def complete(
    session: Session,
    begin: Callable[[Stepped], Any],
    *,
    what: str,
    timeout: float,
    final: str | None = None,
) -> Any:
    """Begins an operation, waits for its end and returns its result (None where it has none).

    `begin` gets the polling method to hand to the SDK's begin_… call, `final` says where the result
    is if not at the resource itself. It raises what the service says of a failure, and
    PublishFailed after `timeout` seconds: then the operation goes on in Azure, and the next run
    finds what it made.
    """
    options = {"final-state-via": final} if final else None
    # a repeated PUT or DELETE of the same content is the same operation
    poller = call(session, lambda: begin(Stepped(lro_options=options)), what)
    method: Stepped = poller.polling_method()
    end = session.clock() + timeout
    while not method.finished():
        if session.clock() >= end:
            raise PublishFailed(
                f"azure: {what} did not end within {timeout / 60:.0f} min",
                hint="the same command waits on; what was sent is kept",
            )
        session.pause(min(method.delay, max(0.0, end - session.clock())))
        call(session, method.step, what)
    call(session, method.conclude, what)
    return method.resource()
