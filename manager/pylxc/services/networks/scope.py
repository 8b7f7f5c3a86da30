"""Which networks a project has, sees and may make.

Bridges are interfaces of the host, so their names are unique on it, whatever their project.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from pylxc.db import models, networks, projects
from pylxc.errors import NotFound
from pylxc.services.projects import restrictions


class Scope:
    """What of networks there is for a project; read once, for one request.

    Attributes:
        project: the project whose networks these are: its own, or the default project.
        restrictions: the configuration of the project that asks.
    """

    def __init__(self, session: Session, project: str) -> None:
        """With a transaction; raises NotFound for the project."""
        row = projects.get(session, project)
        self.project = projects.scope(row, "networks")
        self.restrictions = row.config

    def sees(self, row: models.Network) -> bool:
        """Return whether the project has a managed network, and may use it."""
        return row.project.name == self.project and restrictions.network_allowed(
            self.restrictions, row.name, managed=True
        )

    def sees_interface(self, name: str) -> bool:
        """Return whether the project sees an interface of the host that is no managed network."""
        return self.project == "default" and restrictions.network_allowed(self.restrictions, name, managed=False)

    def get(self, session: Session, name: str) -> models.Network:
        """Return a managed network that the project sees; raises NotFound."""
        row = networks.get(session, name)
        if not self.sees(row):
            raise NotFound("Network not found")
        return row
