"""The page at `/`: what there is on this host, to look at in a browser; and the door that leads an operator's browser to it.

An edge: it renders what the use cases return, changes nothing, and holds no logic. It works without JavaScript, which only
keeps it up to date and draws the topology.
"""
