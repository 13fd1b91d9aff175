"""The CNI edge: the executables that runtimes start, and the blueprint in ovsnetd that answers them.

Owns everything that speaks the CNI protocol, and no logic behind it: the executable forwards, `protocol` translates, the use
cases of the controller decide. Called by the composition root (the blueprint) and by `ovsnet cni` (the installer).
"""
