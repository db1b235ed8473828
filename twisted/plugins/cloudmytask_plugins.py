"""Tells twistd about ``cmt-node``. Imported by every twistd on the machine: it must stay this small."""

from twisted.application.service import ServiceMaker

cmt_node = ServiceMaker(
    "Cloud My Task node",
    "cloudmytask.node_tap",
    "A node of Cloud My Task: runs Python scripts for whoever may ask it to.",
    "cmt-node",
)
