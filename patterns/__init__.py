"""Packets and flows in, Findings out: what hosts do to each other. The door of the room."""

from patterns.room import LOGIN_PORTS, OUTSIDE, RULES, WEB_PORTS, Rule, Windows, warm

__all__ = ["LOGIN_PORTS", "OUTSIDE", "RULES", "WEB_PORTS", "Rule", "Windows", "warm"]
