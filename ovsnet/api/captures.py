"""/v1/captures: what passes an endpoint's switch port, recorded for some seconds."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from ovsnet.capture import CaptureRequest

from .resource import UseCases, new_blueprint
from .schemas import CaptureCreate, EndpointRef

_TYPE = "application/vnd.tcpdump.pcap"


def create_blueprint(controller: UseCases) -> APIBlueprint:
    """The resource on `controller`."""
    blueprint = new_blueprint("captures", "/v1/captures")
    file = {
        "description": "A file of libpcap's format (pcap-savefile(5))",
        "content": {_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }

    @blueprint.post("/<uuid>", responses={200: file})
    def capture(path: EndpointRef, body: CaptureCreate) -> Response:
        """Record what an endpoint sends and receives; answers when the time is over, or the file full."""
        wanted = CaptureRequest(path.uuid, body.seconds, body.bytes, body.filter)
        return Response(controller.capture(wanted), content_type=_TYPE)

    return blueprint
