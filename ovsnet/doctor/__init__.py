"""`ovsnet doctor`: is this host fit for ovsnet, and what is wrong with it? Cause and remedy in one line each.

Looks for itself and changes nothing: the databases, the kernel, files, Docker and CNI are asked whether ovsnetd runs or not. Each
check is a function of a `Host` that yields what it finds wrong; its id is stable, for scripts. Called by the command line
and by the support bundle.
"""

from .checks import CHECKS, Check, Diagnosis, examine, worst
from .host import Host, RealHost
from .trouble import Level, Trouble

__all__ = ["CHECKS", "Check", "Diagnosis", "Host", "Level", "RealHost", "Trouble", "examine", "worst"]
