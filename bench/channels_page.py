"""docs/results/channels.md, from the results of bench/channels.py."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from secateurs.measure.table import aligned
from secateurs.methods.scratch import difference

Records = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
"""Arm → epochs of recovery → one record a seed."""

PAPER = {
    "l1": "0.47 at -28 %, ResNet-56 (a)",
    "FPGM": "0.10 at -53 %, ResNet-56",
    "FPGM-mix": "0.33 at -53 %, ResNet-56",
    "soft filters, l2": "1.33 at -53 %, ResNet-56",
    "NISP": "0.03 at -44 %, ResNet-56 (b)",
    "slimming": "-0.01 at -51 %, VGG-19",
    "LASSO + least squares": "1.9 cut, 1.0 tuned at -50 %, ResNet-56 (b)",
    "DCP": "0.31 at -50 %, ResNet-56",
    "brain damage": "about 1 at 8.5x, AlexNet",
    "scratch-E, widths of l1": "0.60 at -28 %, ResNet-56 (a)",
    "scratch-B, widths of l1": "0.09 at -28 %, ResNet-56 (a)",
}
"""Points of accuracy lost, and the MACs that went, on CIFAR-10 (AlexNet: ImageNet)."""

HEADER = (
    "method",
    "paper lost",
    "MACs",
    "parameters",
    "cut",
    "recovered",
    "lost",
    "epochs",
    "latency",
    "seeds",
)

TITLES = {
    "digits": "`digits_cnn` on the digits, half of the MACs",
    "mnist": "LeNet-5 on MNIST, half of the MACs",
    "cifar10": "ResNet-20 on CIFAR-10, six tenths of the MACs",
    "cifar10-full": "ResNet-20 on CIFAR-10 at full length, six tenths of the MACs",
}

HEAD = """# Channels, kernels and fibres: every method beside its controls

Test accuracy in %, mean ± standard deviation over the seeds done. `cut`: repaired as the arm
says (batch norms measured anew unless it says otherwise) and nothing trained; `recovered`: with
a short training after. `lost` is the dense network's accuracy less the recovered one's, in
points, with the 95 % interval of Student's t over seeds, paired; *tie* where it holds zero.
`epochs` are all that the arm trained, before its cut and after, where they were counted.
Three equal differences make an interval of no width; one image of the digits is 0.28 points,
so such a row says no more than a tie does.
Networks whose channels went are physically smaller and proved in float64 to compute what the
masked ones do; MACs are counted on them. `inbound` and `brain damage` mask half of their
kernels and fibres, so MACs stay. Latency is of the first seed's network on one thread, median
of paired rounds against dense, on a batch of 64.
"""

WORDS = "## What to make of it\n"
WHY = """## Papers, and why the numbers differ

The papers' losses are on CIFAR-10 with ResNet-56 and VGG, after 40 to 400 epochs of tuning; ours
are of the small networks above, which hold far more capacity than their data needs, after a
few epochs. So a loss near zero here repeats no paper's claim; what can be compared is the order
of the arms on the same network, where almost all are ties. (a) As given by Liu et al. 2019, from
memory; (b) as quoted by later work. Of `inbound`, `reduce and reuse`, `kernels, then filters`,
`HRank`, `CHIP`, the group methods, `GReg` and `ResRep` no number of their papers was at hand.
"""


def page(
    results: Mapping[str, Records],
    timed: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, str],
    below: str = "",
) -> str:
    """Write what has been measured so far as one Markdown page; `below` is a person's words."""
    parts = [HEAD]
    for study, records in results.items():
        if "dense" in records:
            parts += [f"## {TITLES[study]}\n", about[study]]
            parts += [aligned(rows(records, timed.get(study, {}))), ""]
            parts += [told for say in (near, repairs, strangers) if (told := say(records))]
    absent = [study for study, records in results.items() if "dense" not in records]
    if absent:
        parts.append(f"Not measured yet: {', '.join(TITLES[study] for study in absent)}.\n")
    parts += [f"{WORDS}\n{below}\n"] if below else []
    parts.append(WHY)
    parts.append("Made by `python bench/channels.py digits mnist cifar10 --data-dir DATA`.\n")
    return "\n".join(parts)


def rows(records: Records, timed: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Lay one study out, arm by arm."""
    dense = [100 * r["accuracy"] for r in records["dense"][0]]
    lines = [
        HEADER,
        ("dense", "", "100 %", "100 %", shown(dense), "", "", "", "", str(len(dense))),
    ]  # fmt: skip
    for name, phases in records.items():
        if name == "dense":
            continue
        last = phases[max(phases)]
        share = [f"{100 * mean(r[key] for r in last):.0f} %" for key in ("macs", "parameters")]
        cut = [100 * r["accuracy"] for r in phases.get(0, ())]
        recovered = phases[max(phases)] if max(phases) else ()
        done = [100 * r["accuracy"] for r in recovered]
        before = [100 * r["dense"] for r in recovered]
        seeds = dict.fromkeys(str(len(phases[n])) for n in sorted(phases))
        trained = dict.fromkeys(str(r.get("trained", "")) for r in recovered)
        speed = timed.get(name, {}).get("verdict", "").removeprefix("faster by ")
        lines.append(
            (name, PAPER.get(name, ""), *share, shown(cut), shown(done), lost(before, done),
             " or ".join(trained), speed, " and ".join(seeds))
        )  # fmt: skip
    return lines


def shown(values: Sequence[float]) -> str:
    """Show the mean and, of two or more, their spread."""
    if not values:
        return "-"
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def lost(dense: Sequence[float], ours: Sequence[float]) -> str:
    """Show what recovered networks lost against the dense ones that they were cut from."""
    if len(ours) < 2:
        return signed(dense[0] - ours[0]) if ours else "-"
    found = difference(dense, ours)
    tie = " tie" if found.tie else ""
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]{tie}"


def signed(points: float) -> str:
    """Show points with their sign, and a loss of nothing as +0.00."""
    return f"{round(points, 2) + 0.0:+.2f}"


def near(records: Records, points: float = 1.5) -> str:
    """Say which recovered networks end further below the dense one than so many points."""
    trained = {n: p[max(p)] for n, p in records.items() if n != "dense" and max(p)}
    away = {n: 100 * mean(r["dense"] - r["accuracy"] for r in rs) for n, rs in trained.items()}
    far = [f"{name} ({gap:.2f})" for name, gap in away.items() if gap > points]
    if not away:
        return ""
    rest = f", all but {', '.join(far)}" if far else ""
    count = f"{len(away) - len(far)} of {len(away)}"
    return f"{count} recovered networks end within {points} points of dense{rest}.\n"


def strangers(records: Records) -> str:
    """Name the arms whose dense network is none of the table's, such as one of another machine."""
    known = {r["accuracy"] for r in records["dense"][0]}
    found = {
        name: sorted({r["dense"] for rs in phases.values() for r in rs if "dense" in r} - known)
        for name, phases in records.items()
        if name != "dense"
    }
    odd = [f"{n} ({', '.join(f'{100 * v:.2f} %' for v in vs)})" for n, vs in found.items() if vs]
    if not odd:
        return ""
    return (
        "Trained on another machine, the dense network comes out a little different; some seeds "
        f"of these were cut from, and are compared with, such a one: {', '.join(odd)}.\n"
    )


def repairs(records: Records) -> str:
    """Say how far repair without training gets where the raw cut collapses."""
    raw, fitted = (records.get(f"l2, {how}", {}).get(0) for how in ("no repair", "least squares"))
    if not raw or not fitted:
        return ""
    left, mended = ([100 * r["accuracy"] for r in some] for some in (raw, fitted))
    worst = max(100 * (r["dense"] - r["accuracy"]) for r in fitted)
    return (
        f"Without any training, cutting by l2 leaves {shown(left)} % without repair and "
        f"{shown(mended)} % with the least-squares repair, at most {worst:.2f} points below dense "
        "on any seed.\n"
    )
