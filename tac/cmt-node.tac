"""A node as a Twisted application: ``twistd -ny cmt-node.tac``.

Its options come from the TOML file (see docs/configuration.md), or from the list below in the form of the command line.
The log goes where the option ``log`` says; without it, where twistd's own options say.
"""

from twisted.application.service import Application

from cloudmytask.node_tap import Options, makeService

options = Options()
options.parseOptions([])

application = Application("cmt-node")
makeService(options).setServiceParent(application)
