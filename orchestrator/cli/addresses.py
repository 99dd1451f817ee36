"""Addresses, names and numbers on the command line: what can't be meant is refused at once, in one sentence."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

PORT = 50051
"""Of a coordinator, where none is given."""
ID_CHARACTERS = 200
CAPACITY_MAX = 10_000
PREFETCH_MAX = 1_000_000
SECONDS_MAX = 31_536_000.0
UNSETTLED_MAX = 10_000_000
BATCH_MAX = 1_000_000
SEED_MAX = 2**63 - 1
SPEED_MAX = 1_000.0
DESCRIPTOR_MAX = PROCESS_MAX = 2**31 - 1


def exit_with(status: int, *lines: str) -> NoReturn:
    for line in lines:
        print(line, file=sys.stderr)
    raise typer.Exit(status)


# ---- where somebody is


def _address(given: str) -> str:
    """HOST:PORT of a coordinator that may be there."""
    host, port = _split("--coordinator", given, PORT)
    _resolve("--coordinator", host)
    return f"{_bracketed(host)}:{port}"


Address = Annotated[
    str,
    typer.Option(
        "--coordinator",
        "-c",
        metavar="HOST:PORT",
        help=f"Where the coordinator is; port {PORT}, if not given.",
        callback=_address,
    ),
]


def metrics_listener(given: str, insecure: bool) -> socket.socket:
    """It listens at HOST:PORT already, 0 for a free port."""
    flag = "--metrics-address"
    host, port = _split(flag, given, None, least=0)
    bracketed = listening(host, insecure, "read the metrics", flag)
    family = socket.AF_INET6 if ":" in _resolve(flag, host)[0] else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        exit_with(2, f"{flag}: cannot listen on {bracketed}:{port}: {os.strerror(error.errno or 0)}")


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{_bracketed(host)}:{port}"


def _split(flag: str, given: str, default: int | None, least: int = 1) -> tuple[str, int]:
    """Host and port. `default`: where none is given; None: it must be."""
    wanted = f"{flag} {given!a}: an address is HOST:PORT"
    if "://" in given:
        exit_with(2, f"{wanted}, without a scheme")
    if is_ip_address(given) and default is not None:
        return given, default
    host, colon, port = given.rpartition(":") if ":" in given.rpartition("]")[2] else (given, "", "")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not _is_printable(host) or (":" in host and not is_ip_address(host)):
        exit_with(2, wanted)
    if not colon and default is not None:
        return host, default
    if not (port.isascii() and port.isdecimal() and least <= int(port) < 65536):
        exit_with(2, f"{wanted}, and a port is {least} to 65535")
    return host, int(port)


def listening(host: str, insecure: bool, strangers: str, flag: str = "--host") -> str:
    """The host, as it is written before a port. `strangers`: what those may do who reach it from elsewhere."""
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not _is_printable(host) or "/" in host or (":" in host and not is_ip_address(host)):
        exit_with(2, f"{flag} {host!a}: a host is a name or an IP address")
    if not insecure and not all(ipaddress.ip_address(found).is_loopback for found in _resolve(flag, host)):
        exit_with(
            2,
            f"{flag} {host}: whoever reaches this machine could {strangers}, without a password or encryption: "
            "give --insecure if that is meant",
        )
    return _bracketed(host)


def _advertised(given: str | None) -> str | None:
    """Only others need to know it."""
    if given is None or (given.startswith("[") and given.endswith("]") and is_ip_address(given[1:-1])):
        return given
    if not _is_printable(given) or "/" in given or (":" in given and not is_ip_address(given)):
        exit_with(2, f"--advertise {given!a}: a host is a name or an IP address, without a port")
    return _bracketed(given)


Advertised = Annotated[
    str | None,
    typer.Option(
        "--advertise",
        metavar="HOST",
        callback=_advertised,
        help="The name by which such a coordinator reaches this host.",
    ),
]


def _resolve(flag: str, host: str) -> list[str]:
    """Its IP addresses."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        exit_with(2, f"{flag}: the host {host!a} is unknown")
    return [str(address[0]).partition("%")[0] for *_, address in found]


def is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# ---- names


def _ids(given: list[str] | None) -> list[str] | None:
    for name in given or ():
        _require_id("--id", name)
    for name, times in Counter(given or ()).items():
        if times > 1:
            exit_with(2, f"--id {name} is given {times} times: each worker has a name of its own")
    return given


def _named(flag: str) -> Callable[[str | None], str | None]:
    """A callback that takes what can be an id."""

    def check(given: str | None) -> str | None:
        if given is not None:
            _require_id(flag, given)
        return given

    return check


def _task_ids(given: Sequence[str]) -> Sequence[str]:
    for name in given:
        _require_id("TASK", name)
    return given


Ids = Annotated[
    list[str] | None,
    typer.Option("--id", callback=_ids, help="Name; given several times, as many workers share this process."),
]
TaskIdOption = Annotated[
    str | None, typer.Option("--id", metavar="TASK", callback=_named("--id"), help="The same as TASK.")
]
TaskIdArgument = Annotated[
    str | None,
    typer.Argument(metavar="TASK", callback=_named("TASK"), help="The id that `submit` printed, or a key."),
]
WorkerName = Annotated[str, typer.Argument(metavar="WORKER", callback=_named("WORKER"), help="Its name.")]
TaskIds = Annotated[
    list[str], typer.Argument(metavar="TASK...", callback=_task_ids, help="The ids that `submit` printed.")
]


def _require_id(flag: str, name: str) -> None:
    if not 0 < len(name) <= ID_CHARACTERS or not _is_printable(name):
        shown = name if len(name) <= 50 else f"{name[:50]}..."
        exit_with(2, f"{flag} {shown!a}: an id is 1 to {ID_CHARACTERS} printable characters")


def _is_printable(text: str) -> bool:
    return text.isprintable() and bool(text.strip())


# ---- numbers


def whole(flag: str, least: int, most: int, what: str) -> Callable[[int | None], int | None]:
    """A callback that takes these numbers only."""

    def check(given: int | None) -> int | None:
        if given is not None and not least <= given <= most:
            exit_with(2, f"{flag} {given}: {what}")
        return given

    return check


def within(flag: str, is_meant: Callable[[float], bool], what: str) -> Callable[[Any], Any]:
    """A callback that takes such numbers only, one or a list of them."""

    def check(given: float | list[float] | None) -> float | list[float] | None:
        for number in given if isinstance(given, list) else [] if given is None else [given]:
            if not is_meant(number):
                exit_with(2, f"{flag} {number:g}: {what}")
        return given

    return check


def seconds(flag: str) -> Callable[[Any], Any]:
    """A callback that takes a time only: finite, and above zero."""
    what = "a time is a finite number of seconds, above 0 and at most a year"
    return within(flag, lambda given: 0 < given <= SECONDS_MAX, what)


def seed_option(help: str) -> Any:
    check = whole("--seed", 0, SEED_MAX, "a seed is 0 to 2^63 - 1")
    return typer.Option("--seed", callback=check, help=help)


def descriptor_option(flag: str, help: str) -> Any:
    check = whole(flag, 0, DESCRIPTOR_MAX, "a file descriptor is 0 or more")
    return typer.Option(flag, hidden=True, callback=check, help=help)


def port_option(help: str) -> Any:
    check = whole("--port", 0, 65535, "a port is 0, for a free one, to 65535")
    return typer.Option("--port", "-p", callback=check, help=help)


MetricsAddress = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Let Prometheus scrape http://HOST:PORT/metrics; port 0: a free one."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond loopback although everybody there may use it.")
]
Capacity = Annotated[
    int,
    typer.Option(
        callback=whole("--capacity", 1, CAPACITY_MAX, f"a worker executes 1 to {CAPACITY_MAX:,} tasks at a time"),
        help="Tasks that it executes at a time.",
    ),
]
Prefetch = Annotated[
    int,
    typer.Option(
        callback=whole(
            "--prefetch", -1, PREFETCH_MAX, f"a worker holds 0 to {PREFETCH_MAX:,} tasks beyond those, -1 any number"
        ),
        help="Tasks that it holds beyond those; -1: any number.",
    ),
]
