"""A CSU as a Twisted application: ``twistd -ny cmt-csu.tac``.

Its options come from the TOML file (see docs/configuration.md), or from the list below in the form of the command line.
The log goes where the option ``log`` says; without it, where twistd's own options say.
"""

from twisted.application.service import Application

from cloudmytask.csu_tap import Options, makeService

options = Options()
options.parseOptions([])

application = Application("cmt-csu")
makeService(options).setServiceParent(application)
