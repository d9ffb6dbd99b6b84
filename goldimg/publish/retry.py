"""One policy for calls that may fail for a while: what cannot succeed on retry is not retried."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from goldimg.iso.download import PASSING as PASSING  # what a later attempt may overcome

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Seconds, and attempts. A call is given up after `attempts` or `budget`, whichever is first.

    Waits double from `first` to `longest`, each drawn between half and the whole of it, so that
    parallel workers that were throttled together do not return together.
    """

    attempts: int = 6
    budget: float = 180.0
    first: float = 0.5
    longest: float = 20.0
    sleep: Callable[[float], None] = field(default=time.sleep)


def retried(
    call: Callable[[], T],
    *,
    policy: Policy,
    is_transient: Callable[[BaseException], bool],
    on_retry: Callable[[BaseException, int, float], None] | None = None,
) -> T:
    """What `call` returns; its last exception where every attempt failed.

    `is_transient` says whether another attempt can help; `on_retry` hears of the exception, the
    number of the attempt that failed, and the seconds until the next.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        longest: float = min(policy.longest, policy.first * 2.0 ** (state.attempt_number - 1))
        return random.uniform(longest / 2, longest)  # noqa: S311 - no secret, only spread

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if on_retry and error is not None and state.next_action:
            on_retry(error, state.attempt_number, state.next_action.sleep)

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(policy.attempts)
        | tenacity.stop_after_delay(policy.budget),
        wait=wait,
        retry=tenacity.retry_if_exception(is_transient),
        before_sleep=tell,
        sleep=policy.sleep,
        reraise=True,
    )
    return retrying(call)
