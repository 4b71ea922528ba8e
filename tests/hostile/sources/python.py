"""Attacks by name, as a Python author would write them by mistake or on purpose."""

import os
import socket
import subprocess
import sys
import threading
import time

from keelstone_guest import UserDraft, hook, log


def deeper(n: int) -> int:
    return deeper(n + 1) + 1


def hoard() -> None:
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def endless() -> None:
    while True:
        pass


def flood() -> None:
    while True:
        log.info("noise")


def swallow() -> None:
    sys.setrecursionlimit(1 << 30)
    while True:
        try:
            deeper(1)
        except BaseException:
            continue


ATTACKS = {
    "loop": endless,
    "recursion": lambda: deeper(1),
    "memory": hoard,
    "flood": flood,
    "swallow": swallow,
    "exit": lambda: os._exit(0),
    "sleep": lambda: time.sleep(3600),
    "file": lambda: open("/etc/passwd").read(),  # noqa: SIM115
    "write": lambda: open("left-behind", "w").write("x"),  # noqa: SIM115
    "socket": lambda: socket.create_connection(("127.0.0.1", 22)),
    "process": lambda: subprocess.run(["true"]),
    "thread": lambda: threading.Thread(target=endless).start(),
    "environment": lambda: [][len(os.environ)],
}


@hook("user_creating")
def user_creating(draft: UserDraft) -> UserDraft | None:
    if draft.name in ATTACKS:
        ATTACKS[draft.name]()
    return None
