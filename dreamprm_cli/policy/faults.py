"""What the failures of a server mean: what to say of them, whether to try again, and what not to ask it for again."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

_MAX_RETRY_AFTER_S = 120.0  # a server that wants more has failed, as far as someone waiting is concerned
_EXTRAS = frozenset({"logprobs", "stream_options"})  # of use to us, of no effect on the answer
_UNSUPPORTED = re.compile(r"support|unknown|unrecogni[sz]ed|unexpected|extra|permitted|allowed|deprecated|instead")


@dataclass(frozen=True, slots=True)
class Failure:
    """`fatal`: no other request to this server will fare better. `reason` may quote the server, secrets and all."""

    reason: str
    hint: str
    retry: bool = True
    retry_after_s: float | None = None
    fatal: bool = False


def broken_stream() -> tuple[type[BaseException], ...]:
    """All that a server can do wrong. Broken JSON and UTF-8 are ValueErrors; older clients let httpx's own through."""
    import openai

    errors = (openai.OpenAIError, OSError, ValueError)
    legacy = sys.modules.get("httpx")
    return errors if legacy is None else (*errors, legacy.HTTPError)


def judge(error: BaseException, *, opened: bool, model: str, key: bool, timeout_s: float) -> Failure:
    """One of `broken_stream()`, read. opened: the server had begun to answer. key: one was sent."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _judge_status(error, model, key)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Failure(f"no answer for {timeout_s:g} s", "is the server busy? try fewer requests at once")
    if isinstance(error, ValueError):
        return Failure(f"malformed answer: {error}", "does this URL speak the OpenAI chat protocol?")
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIConnectionError):
        return Failure(f"error in the stream: {error.message}", "the server had a problem: try later")
    if not opened and type(error.__cause__).__name__ == "ConnectError":
        return Failure("cannot connect", "is the server running, and is the URL (OPENAI_BASE_URL) right?")
    return Failure("the connection was cut off", "try again, or try fewer requests at once")


def _judge_status(error: Any, model: str, key: bool) -> Failure:
    status = int(error.status_code)
    retry_after_s = parse_retry_after(error.response.headers)
    no_credit = error.code == "insufficient_quota"
    patient = retry_after_s is None or retry_after_s <= _MAX_RETRY_AFTER_S
    if status == 401:
        hint = "set OPENAI_API_KEY to a valid key" if key else "this server needs a key: set OPENAI_API_KEY"
    elif status == 403:
        hint = f"may this key use {model}?"
    elif status == 404:
        hint = f"is {model} the right name, and does the URL end where it should (often /v1)?"
    elif status == 429:
        hint = "the account has no credit left" if no_credit else "try later, or fewer requests at once"
    elif status >= 500:
        hint = "the server had a problem: try later"
    else:
        hint = "the request is not to this server's liking: see its own words"
    return Failure(
        f"{status} {_server_message(error)}",
        hint,
        retry=(status in (408, 409, 429) or status >= 500) and patient and not no_credit,
        retry_after_s=retry_after_s,
        fatal=status in (401, 403, 404),
    )


def refused_options(error: Any, sent: dict[str, Any]) -> frozenset[str]:
    """Which of the parameters sent the server may have refused, by its own words; empty when it is about others.

    A value out of range is the user's to correct, so what shapes the answer goes only when it is unsupported.
    """
    if error.status_code not in (400, 403, 404, 422):
        return frozenset()
    words = str(error).lower()
    named = {str(error.param)} & sent.keys() or {name for name in sent if re.search(rf"\b{name}\b", words)}
    if not named and error.status_code in (400, 422):
        return _EXTRAS & sent.keys()
    return frozenset(named if _UNSUPPORTED.search(words) else named & _EXTRAS)


def _server_message(error: Any) -> str:
    body = error.body
    if isinstance(body, dict):
        for key in ("message", "detail", "error"):
            if isinstance(body.get(key), str):
                return str(body[key])
    return str(error.response.reason_phrase)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from now in a Retry-After header, which has a number or a date; None when it says neither."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
