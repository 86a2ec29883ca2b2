"""Signals that end a run: Ctrl-C, and those of a terminal or a cluster."""

import signal

STOPPED = 130  # exit code after Ctrl-C and the other signals
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # Windows lacks some of them
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


def active_signals() -> list[int]:
    """The signals that this process does not ignore. nohup ignores SIGHUP."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def signal_name(number: int) -> str:
    """Such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
