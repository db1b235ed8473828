"""``cmt submit``: hand over a script and go away."""

from __future__ import annotations

import click

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.job_options import SETTINGS, JobOptions, job_options
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verb import verb


@verb(short_help="Hand over a script and print its id.", context_settings=SETTINGS)
@click.option("--stdin", metavar="FILE", help="The script's standard input; - is ours. [default: empty]")
@click.option("--no-stdin", is_flag=True, help="Empty standard input, which is the default here.")
@job_options
def submit(console: Console, options: JobOptions, no_stdin: bool) -> int:
    """Hand over SCRIPT and print the job's id; "cmt wait" and "cmt result" do the rest.

    SCRIPT may be - for a script on standard input. Otherwise standard input is left alone, unless --stdin names it:
    a submit inside a loop must not eat the loop's input.

    \b
    Example:  id=$(cmt submit --timeout 2h fit.py --alpha 0.1)
    """
    from cloudmytask.cli.inputs import Inputs
    from cloudmytask.cli.invocation import Invocation, conduct
    from cloudmytask.cli.reach import with_node
    from cloudmytask.cli.submission import check_script, gather
    from cloudmytask.client.node_session import NodeSession

    if no_stdin and options.stdin is not None:
        raise UsageError("--stdin and --no-stdin exclude each other")

    async def work(invocation: Invocation, node: NodeSession) -> int:
        inputs = Inputs(invocation.reactor.callFromThread)
        try:
            ready = await gather(options, node, inputs, read_stdin=False)
            job = await ready.submit(node)
        finally:
            inputs.close()
        if console.as_json:
            console.document(job.document)
        else:
            console.data(job.id)
        return 0

    check_script(options.script)
    return conduct(with_node(console, work))
