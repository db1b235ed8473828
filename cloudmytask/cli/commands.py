"""What ``cmt`` understands: every verb with its options and its help, in the order of a job's life.

Invariant: declarations only, and nothing is imported for them that takes time. What a verb does is in the function of
the same name in the module of ``cli.verbs`` that is named here.
"""

from __future__ import annotations

import click

from cloudmytask.cli.exit_codes import OURS
from cloudmytask.cli.options import STATE, STATES, choose_jobs, complete_file, describe_job, duration, share, whole
from cloudmytask.cli.verb import Verbs, verb
from cloudmytask.model.words import POLICIES, RESERVE_PULL, StreamName
from cloudmytask.version import VERSION

NEWEST = 50
"""Jobs that ``ps`` lists unless all are wanted."""
SHELLS = ("bash", "zsh", "fish")

_NOT_OURS = {"allow_interspersed_args": False}
"""Context settings of a verb whose script's arguments are not ours, no matter what they look like."""
_RAW = click.option("--raw", is_flag=True, help="Show control sequences as they are, on a terminal too.")


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, prog_name="cmt", message="%(prog)s %(version)s")
@click.option(
    "--via",
    metavar="ADDRESS",
    help="The node to talk to: unix:PATH or HOST:PORT. [default: $CMT_NODE, or the local one]",
)
@click.pass_context
def verbs(context: click.Context, via: str | None) -> None:  # noqa: ARG001 - the verbs read it
    """Run Python scripts on whichever machine of your network is not busy.

    A SELECTOR is a job's id, its beginning, or "last", the job that you submitted last.

    \b
    Example:  cmt run examples/primes.py
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


# Jobs


@verb(verbs, "run", ours=OURS, short_help="Run a script as if it ran here.", context_settings=_NOT_OURS)
@click.option(
    "--stdin",
    shell_complete=complete_file,
    metavar="FILE",
    help="The script's standard input. [default: ours, unless it is a terminal]",
)
@click.option("--no-stdin", is_flag=True, help="Empty standard input, no matter what ours is.")
@click.option("--raw", is_flag=True, help="Show control sequences in the output as they are, on a terminal too.")
@describe_job
def run() -> None:
    """Run SCRIPT as "python SCRIPT" would: same output, same input, same exit code, same Ctrl-C.

    SCRIPT may be - for a script on standard input. What stands behind it belongs to it. Standard input is read to its
    end before the script starts. The first Ctrl-C asks the script to end, the second kills it. Without a node within
    reach, one is started for the time being. With --json the output is part of the answer instead.

    \b
    Example:  seq 5 | cmt run --timeout 90s sum.py --verbose
    """


@verb(verbs, "submit", short_help="Hand over a script and print its id.", context_settings=_NOT_OURS)
@click.option(
    "--stdin",
    shell_complete=complete_file,
    metavar="FILE",
    help="The script's standard input; - is ours. [default: empty]",
)
@click.option("--no-stdin", is_flag=True, help="Empty standard input, which is the default here.")
@describe_job
def submit() -> None:
    """Hand over SCRIPT and print the job's id; "cmt wait" and "cmt result" do the rest.

    SCRIPT may be - for a script on standard input. Otherwise standard input is left alone, unless --stdin names it:
    a submit inside a loop must not eat the loop's input.

    \b
    Example:  id=$(cmt submit --timeout 2h fit.py --alpha 0.1)
    """


@verb(verbs, "jobs")
@click.option("--state", "states", type=STATE, metavar="STATE", multiple=True, help=f"Only these: {STATES}.")
@click.option("--name", metavar="NAME", help="Only jobs of this name.")
@click.option("-a", "--all", "everything", is_flag=True, help=f"All jobs. [default: the newest {NEWEST}]")
def ps() -> None:
    """List your jobs, newest first. With -q only their ids.

    \b
    Example:  cmt ps --state running --state waiting
    """


@verb(verbs, "jobs")
@choose_jobs
def status() -> None:
    """Show all that is known about jobs. With -q only their states.

    \b
    Example:  cmt status last
    """


@verb(verbs, "output", short_help="Fetch the output of a job that has ended.")
@click.argument("selector")
@click.option("--stdout", "only", flag_value=StreamName.STDOUT.value, default=None, help="Only the standard output.")
@click.option("--stderr", "only", flag_value=StreamName.STDERR.value, help="Only the standard error.")
@click.option(
    "-o",
    "--output",
    shell_complete=complete_file,
    metavar="FILE",
    help="Write standard output (with --stderr, that) to FILE.",
)
@_RAW
def result() -> None:
    """Fetch the output of a job that has ended: its stdout to stdout, its stderr to stderr.

    Exit code 4 if it has not ended yet, 1 if it did not succeed or the node did not keep all of its output.

    \b
    Example:  cmt result --stdout -o figures.csv last
    """


@verb(verbs, "output", short_help="Show the output of a job so far.")
@click.argument("selector")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--attempt", type=whole(1), metavar="N", help="Of this attempt. [default: the latest]")
@click.option("--tail", type=whole(0), metavar="N", help="Only the last N lines of each stream.")
@_RAW
def logs() -> None:
    """Show the output of a job so far, in any state.

    Exit code 1 if the node did not keep all of it.

    \b
    Example:  cmt logs -f --tail 10 last
    """


@verb(verbs, "jobs", ours=OURS)
@click.option(
    "--timeout", type=duration, metavar="DURATION", help="Give up after this long, with exit code 125; such as 10m."
)
@choose_jobs
def wait() -> None:
    """Wait until jobs have ended. The exit code is the script's: of the first job that did not succeed.

    Of a job that did not succeed it says on standard error how it ended, and shows the last lines that it wrote there.

    \b
    Example:  cmt wait --timeout 2h last
    """


@verb(verbs, "jobs", short_help="End jobs.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the job has ended.")
@click.option("--note", metavar="TEXT", default="", help="Why; cmt why shows it.")
@choose_jobs
def cancel() -> None:
    """End jobs: their scripts are asked to end (SIGTERM), and killed after a grace, with all that they started.

    \b
    Example:  cmt cancel --note "wrong input" last
    """


@verb(verbs, "jobs", short_help="Submit jobs once more.")
@choose_jobs
def retry() -> None:
    """Submit jobs that have ended once more, as new jobs, and print their ids.

    \b
    Example:  cmt retry --state failed
    """


@verb(verbs, "jobs", short_help="Say why a job is in its state.")
@click.argument("selector")
def why() -> None:
    """Say why a job is in its state: in a sentence, then in detail. With -q only the sentence.

    \b
    Example:  cmt why last
    """


@verb(verbs, "jobs", short_help="Delete outcome and output of jobs.")
@choose_jobs
def rm() -> None:
    """Delete outcome and output of jobs that have ended, before their retention does.

    \b
    Example:  cmt rm --state succeeded
    """


# The cluster


@verb(verbs, "cluster", short_help="List the nodes of the cluster.")
def nodes() -> None:
    """List the nodes of the cluster as the one that you talk to sees them. With -q only their names.

    LOAD is the share of a machine's CPU that others than our jobs use, FREE how many scripts a node would start at
    once and how many slots it has.

    \b
    Example:  cmt nodes
    """


@verb(verbs, "top", short_help="Watch the cluster at work.")
@click.option("--once", is_flag=True, help="Show it once. [default if standard output is no terminal]")
@click.option(
    "--history",
    "ago",
    type=duration,
    metavar="DURATION",
    help="Show instead how busy each node was in the last DURATION, such as 1h; a CSU knows.",
)
def top() -> None:
    """Watch nodes, load, slots, queues and your newest jobs; q or Ctrl-C ends it.

    LOAD is the share of a machine's CPU that others than our jobs use.

    \b
    Example:  cmt top
              cmt top --history 1h
    """


@verb(verbs, "cluster", short_help="Draw the tree that links the nodes.")
@click.option("--dot", is_flag=True, help="As a graph for Graphviz.")
def topology() -> None:
    """Draw the tree that links the nodes, as the node that you talk to sees it. With -q names only.

    \b
    Example:  cmt topology --dot | dot -Tsvg > cluster.svg
    """


@verbs.group(cls=Verbs, invoke_without_command=True, short_help="Ban clients, and see who is banned.")
@click.pass_context
def ban(context: click.Context) -> None:
    """Ban clients from the cluster, and see who is banned and why.

    Bans are made and lifted on the machine of a node or a CSU; any of them will do.

    \b
    Example:  cmt ban add --client mallory --reason "floods the queue" --for 1h
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@verb(ban, "cluster", name="add")
@click.option("--client", metavar="CLIENT", required=True, help="Whom.")
@click.option("--reason", required=True, help="Why; the client is told.")
@click.option("--for", "term", type=duration, metavar="DURATION", default="1h", help="How long. [default: 1h]")
def ban_add() -> None:
    """Ban a client on all nodes.

    \b
    Example:  cmt ban add --client mallory --reason "floods the queue" --for 1h
    """


@verb(ban, "cluster", name="ls")
def ban_ls() -> None:
    """List the bans in force. With -q only the clients.

    \b
    Example:  cmt ban ls
    """


@verb(ban, "cluster", name="rm")
@click.argument("client")
def ban_rm() -> None:
    """Lift a ban before it ends.

    \b
    Example:  cmt ban rm mallory
    """


@verb(ban, "cluster", name="why")
@click.argument("client")
def ban_why() -> None:
    """Say why a client is banned, by whom and for how long. Exit code 1 if it is not.

    \b
    Example:  cmt ban why mallory
    """


# This machine


@verb(verbs, "simulate", short_help="Simulate a whole cluster, and print its figures.")
@click.option("--nodes", type=whole(1, 10_000), metavar="N", default=16, show_default=True, help="How many nodes.")
@click.option("--slots", type=whole(1, 4096), metavar="N", default=4, show_default=True, help="Slots of each node.")
@click.option("--jobs", type=whole(1, 10_000_000), metavar="N", default=2000, show_default=True, help="How many jobs.")
@click.option(
    "--load",
    metavar="FACTOR",
    type=click.FloatRange(0.0, 100.0, min_open=True),
    default=0.95,
    show_default=True,
    help="The work that arrives, by what all slots can do.",
)
@click.option("--length", type=duration, default="1s", show_default=True, help="Of a job, on average.")
@click.option(
    "--lengths",
    type=click.Choice(["constant", "heavy"]),
    default="constant",
    show_default=True,
    help="All jobs alike, or a few jobs most of the work.",
)
@click.option(
    "--gateway",
    type=click.Choice(["one", "even"]),
    default="even",
    show_default=True,
    help="Jobs are submitted to one node, or to all.",
)
@click.option(
    "--policy", type=click.Choice(POLICIES), default=RESERVE_PULL, show_default=True, help="How jobs are placed."
)
@click.option(
    "--kill",
    type=share,
    default="0%",
    show_default=True,
    metavar="SHARE",
    help="Share of the nodes that are killed and started again.",
)
@click.option("--partitions", type=whole(0, 1000), metavar="N", default=0, help="How often the network falls in two.")
@click.option(
    "--seed", type=int, metavar="N", default=1, show_default=True, help="Another one gives another course of events."
)
def simulate() -> None:
    """Simulate a whole cluster in virtual time, and print its figures beside those of a central queue that knows
    everything. The nodes are the real ones; clock, network, disks and scripts are not.

    \b
    Example:  cmt simulate --nodes 100 --jobs 20000 --load 0.95 --kill 10% --seed 7
    """


@verb(verbs, "doctor", short_help="Check what is needed on this machine.")
def doctor() -> None:
    """Check what Cloud My Task needs on this machine, and say how to mend what is missing.

    Exit code 1 if there is a problem; a note is none. With -q it shows problems only.

    \b
    Example:  cmt doctor
    """


@verb(verbs, "completion", short_help="Print code that completes cmt in your shell.")
@click.argument("shell", metavar="[SHELL]", type=click.Choice(SHELLS), required=False)
def completion() -> None:
    """Print code that makes your shell complete cmt's verbs and options.

    SHELL is bash, zsh or fish; without it, the one that $SHELL names.

    \b
    Example:  eval "$(cmt completion bash)"
    """
