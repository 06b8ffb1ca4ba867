"""What the age of the last heartbeat says of the node's health."""

import socket

from config import Settings
from ledger.heartbeats import Pulse
from ledger.ledger import Ledger
from node import notices

PERIODS = 3  # without one that arrived


def own_pulse(pulses: list[Pulse], machine: str = "") -> Pulse | None:
    """This machine's; the youngest of all where this one sends none, as one that only shows."""
    machine = machine or socket.gethostname()
    own = next((one for one in pulses if one.machine == machine), None)
    return own or min(pulses, key=lambda one: one.age_s, default=None)


def judged(settings: Settings, ledger: Ledger, up_s: float) -> tuple[list[str], list[str]]:
    """Reasons to be red, and alarms. up_s: for how long this node has run; nothing was to arrive before.

    A node that is busy with patients lets its heartbeat wait: that is told and is no reason to be red.
    """
    every_s = settings.heartbeat.every_s
    if every_s <= 0:
        return [], []
    if impossible := notices.read(settings, "heartbeat").get("impossible"):
        return [], [f"no heartbeat can be sent: {impossible}"]
    pulse = own_pulse(ledger.pulses())
    age_s = min(pulse.age_s, up_s) if pulse else up_s
    if age_s <= PERIODS * every_s:
        return [], []
    if pulse is None:
        return [f"no heartbeat was sent for {age_s:.0f} s: does the role keep run?"], []
    said = f"no heartbeat has arrived for {age_s:.0f} s; of the newest: {pulse.newest.where}"
    return ([], [said]) if pulse.newest.behind else ([said], [])
