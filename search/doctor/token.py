"""The token with which this process would join a Ray cluster, found where Ray itself looks for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODE = "RAY_AUTH_MODE"
FILE = Path(".ray") / "auth_token"
"""In the home directory."""


@dataclass(frozen=True)
class Token:
    """``text`` is empty where there is none; ``source`` says where it is, or should be; ``mode`` is RAY_AUTH_MODE."""

    text: str
    source: str
    mode: str | None

    @property
    def sent(self) -> bool:
        """Whether Ray would show it: by default it does where there is one."""
        return bool(self.text) and self.mode in (None, "token")


def own_token(environment: Mapping[str, str] = os.environ) -> Token:
    """What ``RAY_AUTH_TOKEN``, the file ``RAY_AUTH_TOKEN_PATH`` or ``~/.ray/auth_token`` holds, in this order."""
    mode = environment.get(MODE)
    mode = mode.lower() if mode is not None else None
    if text := environment.get("RAY_AUTH_TOKEN", "").strip():
        return Token(text, "RAY_AUTH_TOKEN", mode)
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    try:
        file = Path(named) if named else Path.home() / FILE
        return Token(file.read_text().strip(), str(file), mode)
    except (OSError, RuntimeError, UnicodeDecodeError):
        return Token("", named or f"~/{FILE}", mode)
