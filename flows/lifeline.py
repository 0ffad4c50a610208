"""Runs a command that must not outlive whoever asked for it: ``python lifeline.py command …``.

Standard input is the lifeline: its other end is held by the asking process alone, so that it
closes when that process ends, even by SIGKILL. Then the whole process group is killed. Imports
nothing but the standard library, and is started by its path.
"""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
from contextlib import suppress


def hold_on() -> None:
    """Waits for the lifeline to break and kills the process group, this process with it."""
    while os.read(0, 4096):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


def leave_the_terminal() -> None:
    """Whoever asks for a password is told that nobody is there, and does not wait for one."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY)
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
        os.close(terminal)


def main(command: list[str]) -> int:
    """Runs the command and returns its exit status, 128 + number for a signal as shells do.

    A SIGTERM to the group is the command's to answer.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    leave_the_terminal()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        threading.Thread(target=hold_on, daemon=True).start()
        status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # not by way of the thread that still reads
