"""Verdicts and findings in, a few explained incidents with a life out. The door of the room."""

from alerts.room import Incidents

__all__ = ["Incidents"]
