"""The CNM edge: Docker's remote driver protocol, network and IPAM.

Owns the protocol (protocol.py) and its socket (listener.py), and nothing else: network.py and ipam.py hand every call to the
use cases of ovsnet.docker. The daemon serves it on a unix socket below /run/docker/plugins, whose file name is the driver's
name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ovsnet.operations import Observe, observe_nothing

from .ipam import IpamDriver
from .network import NetworkDriver
from .protocol import Activation, DockerScope, Nothing, Plugin, Route, always

if TYPE_CHECKING:
    from ovsnet.docker import DockerDriver

ACTIVATION = Activation(Implements=("NetworkDriver", "IpamDriver"))


def create_plugin(
    driver: DockerDriver, *, scope: DockerScope, requester: Callable[[], str], observe: Observe = observe_nothing
) -> Plugin:
    """The plugin. `requester` tells, within a call, which dockerd asks (`cnm.peer.requester` under the listener);
    `observe` is told of each call.
    """
    return Plugin(
        (
            Route("/Plugin.Activate", Nothing, always(ACTIVATION)),
            *NetworkDriver(driver, scope, requester).routes(),
            *IpamDriver(driver, requester).routes(),
        ),
        observe,
    )
