"""Run untrusted programs in hardened containers; the host compares, verdicts cannot be faked.

from dreamprm_sandbox import Sandbox
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamprm_sandbox.limits import Limits
    from dreamprm_sandbox.pool import Sandbox

__all__ = ["Limits", "Sandbox"]


def __getattr__(name: str) -> Any:
    """Imported when first asked for: a module of this package can be run by itself."""
    if name == "Sandbox":
        from dreamprm_sandbox.pool import Sandbox

        return Sandbox
    if name == "Limits":
        from dreamprm_sandbox.limits import Limits

        return Limits
    raise AttributeError(name)
