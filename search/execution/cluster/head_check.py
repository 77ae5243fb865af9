"""Checks that the head of a Ray cluster answers and lets this machine in, before ``ray.init`` is called.

``ray.init`` takes 20 s to say "failed to connect" to a head that expects another token, and two minutes if nothing
listens at the address. One request tells the two apart in a tenth of a second.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.execution.cluster.ray_internals import CLUSTER_ID_METHOD, resolve_head
from search.records.finding import Finding, failed, ok

HEAD_TIMEOUT_SECONDS = 5.0
"""Time that a head has to answer."""

AUTH_MODE = "RAY_AUTH_MODE"
"""Environment variable that switches Ray's tokens on or off."""

TOKEN_FILE = Path(".ray") / "auth_token"
"""Ray's default file of the token, relative to the home directory."""


@dataclass(frozen=True)
class Token:
    """The token with which this process would join a cluster.

    Attributes:
        text: the token; empty if there is none.
        source: the file or variable that holds it, or should hold it.
        mode: value of ``RAY_AUTH_MODE`` in lower case; None if it is not set.
    """

    text: str
    source: str
    mode: str | None

    @property
    def sent(self) -> bool:
        """Whether Ray sends the token: by default it does if there is one."""
        return bool(self.text) and self.mode in (None, "token")


def own_token(environment: Mapping[str, str] = os.environ) -> Token:
    """Look where Ray looks: ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH`` (a file), then ``~/.ray/auth_token``."""
    mode = environment.get(AUTH_MODE)
    mode = mode.lower() if mode is not None else None
    if text := environment.get("RAY_AUTH_TOKEN", "").strip():
        return Token(text, "RAY_AUTH_TOKEN", mode)
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    try:
        file = Path(named) if named else Path.home() / TOKEN_FILE
        return Token(file.read_text().strip(), str(file), mode)
    except (OSError, RuntimeError, UnicodeDecodeError):
        return Token("", named or f"~/{TOKEN_FILE}", mode)


def check_head(address: str) -> Finding:
    """Return a finding that is ok if a head answers at ``address`` and lets this machine in."""
    try:
        where = _resolved(address)
    except (ConnectionError, ValueError, OSError) as error:
        return failed("ray", _no_address(address, error))
    if where is None:  # nothing to check here: ray.init will find out
        return ok("ray", address)
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_TIMEOUT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        return failed(
            "ray", f"nothing answers at {where} ({error}). Check that the head runs (`ray status` there), that the "
            "address is right, and that no firewall blocks this machine."
        )  # fmt: skip
    token = own_token()
    refusal = _request_status(where, token.text if token.sent else "")
    if refusal is None:
        return ok("ray", f"the head at {where} answers")
    if refusal == "UNAUTHENTICATED":
        return failed("token", _refused(where, token))
    return failed(
        "ray",
        f"{where} is no head of a Ray cluster (it answers {refusal}): its port is 6379 unless chosen otherwise",
    )


def readable_connection_error(error: Exception) -> str:
    """Return Ray's message about a failed connection; a shorter one if the versions differ."""
    found = re.findall(r"(Ray|Python): (\S+)", str(error)) if "Version mismatch" in str(error) else []
    # Ray's message contains the versions of Ray and of Python twice, first the cluster's and then this
    # machine's.
    if len(found) != 4:
        return str(error)
    cluster, mine = (
        " and ".join(f"{name} {version}" for name, version in half) for half in (found[:2], found[2:])
    )
    return f"versions differ: the cluster runs {cluster}, this machine {mine}: install the cluster's here"


def _resolved(address: str) -> str | None:
    """Return HOST:PORT of the head; None for addresses that only Ray understands (Ray Client, ``local``)."""
    if "://" in address or address == "local":
        return None
    return resolve_head(address)


def _request_status(where: str, token: str) -> str | None:
    """Send a request with ``token``; return the name of the gRPC status that refuses it, None if it is answered.

    The body stays bytes in both directions, so that no generated code of Ray is needed.
    """
    import grpc

    def as_is(message: Any) -> Any:
        return message

    metadata = [("authorization", f"Bearer {token}")] if token else []
    # gRPC would otherwise send the request to a proxy for HTTP, which Ray itself does not use.
    with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(CLUSTER_ID_METHOD, request_serializer=as_is, response_deserializer=as_is)
        try:
            call(b"", timeout=HEAD_TIMEOUT_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            name: str = error.code().name
            return name
    return None


def _refused(where: str, token: Token) -> str:
    if token.text and not token.sent:
        return (
            f"the head at {where} asks for a token, and {AUTH_MODE}={token.mode} keeps this machine from sending the "
            f"one in {token.source}: set {AUTH_MODE}=token"
        )
    if token.text:
        return (
            f"the token in {token.source} is not the one of the head at {where}: copy the head's ~/.ray/auth_token to "
            "~/.ray/auth_token on this machine (a cluster file does it for its nodes with file_mounts)"
        )
    return (
        f"the head at {where} asks for a token and there is none in {token.source}: copy the head's ~/.ray/auth_token "
        f"there and set {AUTH_MODE}=token"
    )


def _no_address(address: str, error: Exception) -> str:
    if address == "auto":
        return (
            "no Ray cluster runs on this machine, which --address auto means: start one (`ray up`, `ray start "
            "--head`), or give the head's address, as in --address 10.0.0.1:6379"
        )
    return f"{address!r} is no address of a cluster ({error}): expected HOST:PORT or auto"
