"""Pictures of the paper's experiment, drawn from its CSV files. Usage: python -m benchmarks.drawing

Invariant: nothing is measured here; the same files give the same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.observations import JobRow, Look, read_jobs, read_looks, throughput

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
PATTERNS = ("normal", "full", "burst")
WATCHED = (4, 8)
COLORS = {4: "tab:orange", 8: "tab:blue"}


def library() -> Any:
    """``matplotlib.pyplot``, drawing into files.

    :raises SystemExit: it is not installed.
    """
    try:
        import_module("matplotlib").use("Agg")
    except ModuleNotFoundError as missing:
        raise SystemExit(f"matplotlib draws the pictures ({missing}): pip install 'cloudmytask[bench]'") from None
    return import_module("matplotlib.pyplot")


def draw(directory: Path = FIGURES) -> None:
    """All pictures, next to the CSV files in ``directory``.

    :raises OSError: a CSV file is missing.
    """
    jobs = read_jobs(directory)
    length = jobs[0].length
    times = "the original's times" if length == 5.0 else f"all times 1/{5 / length:.0f} of the original's"
    said = f"one slot a node, scripts sleep {length:g} s, {times}"
    for pattern in PATTERNS:
        _load(directory, pattern, said)
    _throughput(directory, jobs, said)
    _responses(directory, jobs, said)


def _load(directory: Path, pattern: str, said: str) -> None:
    plots = library()
    picture, axes = plots.subplots(2, 2, figsize=(10, 5), sharex="col", height_ratios=(3, 1), layout="constrained")
    for column, nodes in enumerate(WATCHED):
        looks = read_looks(directory, pattern, nodes)
        _bands(axes[0, column], looks, nodes)
        waiting = [sum(look.waiting) for look in looks]
        axes[1, column].step([look.at for look in looks], waiting, where="post", color="tab:gray")
        axes[1, column].set(xlabel="seconds", ylabel="waiting jobs", ylim=(0, None))
    picture.suptitle(f"Running script of each node, arrivals “{pattern}”\n{said}", fontsize=10)
    picture.savefig(directory / f"load-{pattern}.png", dpi=110)
    plots.close(picture)


def _bands(axes: Any, looks: Sequence[Look], nodes: int) -> None:
    times = [look.at for look in looks]
    for number in range(nodes):
        height = [nodes - 1 - number + 0.8 * look.running[number] for look in looks]
        axes.fill_between(times, nodes - 1 - number, height, step="post", color=COLORS[nodes], linewidth=0)
    axes.set_yticks([nodes - 1 - number + 0.4 for number in range(nodes)], [f"n{number}" for number in range(nodes)])
    axes.set(title=f"{nodes} nodes", ylim=(-0.2, nodes))


def _throughput(directory: Path, jobs: Sequence[JobRow], said: str) -> None:
    plots = library()
    full = [job for job in jobs if job.pattern == "full"]
    sizes = sorted({job.nodes for job in full})
    rates = [throughput([job for job in full if job.nodes == nodes], nodes) for nodes in sizes]
    picture, axes = plots.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(sizes, [nodes / jobs[0].length for nodes in sizes], "--", color="tab:gray", label="ideal: nodes ÷ length")
    axes.plot(sizes, rates, "o-", color="tab:blue", label="measured")
    for nodes, rate in zip(sizes, rates, strict=True):
        axes.annotate(f"{rate * jobs[0].length / nodes:.1%}", (nodes, rate), (0, -16), textcoords="offset points")
    axes.set(xlabel="nodes", ylabel="jobs per second", xticks=sizes, xlim=(0, max(sizes) + 1), ylim=(0, None))
    axes.set_title(f"Throughput under “full”, and its share of the ideal\n{said}", fontsize=10)
    axes.legend()
    picture.savefig(directory / "throughput.png", dpi=110)
    plots.close(picture)


def _responses(directory: Path, jobs: Sequence[JobRow], said: str) -> None:
    plots = library()
    picture, axes = plots.subplots(1, 3, figsize=(10, 3.5), sharey=True, layout="constrained")
    for column, pattern in enumerate(PATTERNS):
        for nodes in WATCHED:
            mine = [job for job in jobs if (job.pattern, job.nodes) == (pattern, nodes)]
            taken = sorted(job.ended - job.submitted for job in mine if job.ended is not None)
            shares = [(number + 1) / len(mine) for number in range(len(taken))]
            axes[column].step(taken, shares, where="post", color=COLORS[nodes], label=f"{nodes} nodes")
        axes[column].set(title=pattern, xlabel="response time, seconds", xlim=(0, None), ylim=(0, 1.02))
    axes[0].set_ylabel("share of jobs")
    axes[0].legend(loc="lower right")
    picture.suptitle(f"From submission to the script's end\n{said}", fontsize=10)
    picture.savefig(directory / "responses.png", dpi=110)
    plots.close(picture)


if __name__ == "__main__":
    draw()
