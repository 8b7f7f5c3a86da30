"""Who asks for something, and how far they are trusted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        trusted: may use the API; who is not sees what is for everybody.
        fingerprint: of the certificate that a trusted caller has shown, "" on the unix socket.
        projects: what a restricted caller is confined to; None for who is not restricted.
        reads_metrics: may read the metrics, trusted or not.
    """

    trusted: bool = False
    fingerprint: str = ""
    projects: frozenset[str] | None = None
    reads_metrics: bool = False

    @property
    def restricted(self) -> bool:
        """Whether it is confined to some projects."""
        return self.projects is not None

    def may_enter(self, project: str) -> bool:
        """Tell whether what is in a project ("" is the server as a whole) is for this trusted caller."""
        return self.trusted and (self.projects is None or project in self.projects)


LOCAL = Caller(trusted=True)
"""Whoever may open the unix socket."""
STRANGER = Caller()
