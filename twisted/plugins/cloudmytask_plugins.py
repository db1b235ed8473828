"""Tells twistd about ``cmt-node`` and ``cmt-csu``. Imported by every twistd on the machine: it must stay this small."""

from twisted.application.service import ServiceMaker

cmt_node = ServiceMaker(
    "Cloud My Task node",
    "cloudmytask.node_tap",
    "A node of Cloud My Task: runs Python scripts for whoever may ask it to.",
    "cmt-node",
)
cmt_csu = ServiceMaker(
    "Cloud My Task CSU",
    "cloudmytask.csu_tap",
    "A Central Supervisory Unit of Cloud My Task: keeps the blacklist, the registry of nodes, their load.",
    "cmt-csu",
)
