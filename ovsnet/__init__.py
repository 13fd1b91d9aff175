"""ovsnet: a container network controller on Open vSwitch, for Docker and CNI."""

__version__ = "0.1.0"
