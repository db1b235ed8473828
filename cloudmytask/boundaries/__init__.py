"""The borders of the system: what an instance asks of the world, what it offers to clients and to its peers.

Invariant: protocols only, no logic. Each is implemented twice: by a shell for the real world, and in
``cloudmytask.simulation`` for virtual time.
"""

from cloudmytask.boundaries.front_door import (
    BansChanged,
    ClusterDoor,
    Event,
    JobDoor,
    MemberChanged,
    OutputEnd,
    OutputPiece,
    OutputReader,
    Receipt,
    Submission,
    Upload,
    Watch,
)
from cloudmytask.boundaries.launching import (
    ExitRecord,
    Launch,
    OpenSinks,
    Runner,
    Running,
    Sinks,
    StreamSink,
    StreamTarget,
)
from cloudmytask.boundaries.peers import AttemptSink, Bus, Link, Links, PeerDoor
from cloudmytask.boundaries.world import (
    Clock,
    DelayedCall,
    Entropy,
    JobStore,
    LoadProbe,
    Recovery,
    Spool,
    WallClock,
    World,
)

__all__ = [
    "AttemptSink",
    "BansChanged",
    "Bus",
    "Clock",
    "ClusterDoor",
    "DelayedCall",
    "Entropy",
    "Event",
    "ExitRecord",
    "JobDoor",
    "JobStore",
    "Launch",
    "Link",
    "Links",
    "LoadProbe",
    "MemberChanged",
    "OpenSinks",
    "OutputEnd",
    "OutputPiece",
    "OutputReader",
    "PeerDoor",
    "Receipt",
    "Recovery",
    "Runner",
    "Running",
    "Sinks",
    "Spool",
    "StreamSink",
    "StreamTarget",
    "Submission",
    "Upload",
    "WallClock",
    "Watch",
    "World",
]
