"""The CNM edge: Docker's remote driver protocol, network and IPAM, as one WSGI application.

Owns the protocol (protocol.py) and nothing else: network.py and ipam.py hand every call to the use cases of
ovsnet.docker. The daemon serves the application on a unix socket below /run/docker/plugins, whose file name is the
driver's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask

from .ipam import IpamDriver
from .network import NetworkDriver
from .protocol import Activation, DockerScope, Nothing, Route, always, install

if TYPE_CHECKING:
    from ovsnet.docker import DockerDriver

ACTIVATION = Activation(Implements=("NetworkDriver", "IpamDriver"))


def create_app(driver: DockerDriver, *, scope: DockerScope, requester: Callable[[], str]) -> Flask:
    """The application. `requester` tells, within a request, which dockerd asks (`cnm.peer.requester` under cheroot)."""
    app = Flask(__name__, static_folder=None)
    install(
        app,
        (
            Route("/Plugin.Activate", Nothing, always(ACTIVATION)),
            *NetworkDriver(driver, scope, requester).routes(),
            *IpamDriver(driver, requester).routes(),
        ),
    )
    return app
