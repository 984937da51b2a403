"""What the papers on kernels, filters and channels claim, each on a network that trains in minutes.

    python bench/channel_claims.py --data-dir DATA --out runs/channel-claims
    python bench/channel_claims.py --data-dir DATA --only crosses neurons --seeds 0

Every claim leaves one JSON file a seed in the output folder; what is there is not done again,
nor what docs/results/channel-claims.jsonl has (remove its lines to begin anew), and a training
that was killed goes on from its last epoch. Writes that file and docs/results/channel-claims.md;
`--collect` only does that.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import channel_claims_jobs as jobs
import torch
from channel_claims_jobs import Numbers
from channel_claims_nets import Lab, lab_of
from channels_page import shown
from own_words import own_words

from secateurs.measure.report import write_whole
from secateurs.measure.table import aligned


@dataclass(frozen=True)
class Claim:
    """What a paper says, how it is tried, and what would confirm it."""

    title: str
    job: Callable[[Lab], Numbers]
    net: str
    about: str
    checks: Mapping[str, Callable[[Numbers], bool]]
    """Sentence → whether the means over seeds agree."""
    seeds: tuple[int, ...] = (0, 1, 2)


CRITERIA = ("l2", "FPGM", "NISP", "scales")
CLAIMS = {
    "crosses": Claim(
        "Group-wise brain damage: the authors' demo",
        jobs.crosses,
        "lenet5-demo",
        "LeNet-5 on MNIST after two epochs at 0.01; one more at 0.001 tunes what a cross leaves, "
        "9 of 25 taps. Last, both convolutions keep a quarter of their taps, chosen in four rounds "
        "under the group penalty and tuned for two epochs. The authors' 96.04 and 97.89 are of "
        "one run.",
        {
            "The linear layers tuned alone reach 95.5.": lambda n: (
                n["then the linear layers tuned"] >= 95.5
            ),
            "All tuned reaches 97.4.": lambda n: n["then all tuned, zeros held"] >= 97.4,
            "Learned taps reach 98.5 at a density of a quarter.": lambda n: (
                n["taps learned"] >= 98.5
                and n["taps learned, density of the fuller convolution"] <= 25.01
            ),
        },
    ),
    "stages": Claim(
        "Kernels first, then filters: finer cuts hurt less",
        jobs.stages,
        "tiny",
        "A small network on CIFAR-10 keeps half of its parameters, nothing trained after.",
        {
            "Kernels alone are right most often, filters alone least.": lambda n: (
                n["kernels alone"] >= n["kernels, then filters"] >= n["filters alone"]
            ),
        },
    ),
    "reuse": Claim(
        "Reduce and Reuse",
        jobs.reuse,
        "lenet5",
        "Half of the filters of LeNet-5's second convolution go, by the variance of their maps; "
        "`reused` writes what went as a mix of what stays. One epoch tunes.",
        {
            "Tuned, it reaches 98.5.": lambda n: n["reused, tuned"] >= 98.5,
            "Reuse helps: untuned it is right more often than reducing alone.": lambda n: (
                n["reused"] >= n["reduced"]
            ),
            "Untuned, it is right more often than a random choice.": lambda n: (
                n["reused"] >= n["random"]
            ),
        },
    ),
    "rebuilt": Claim(
        "LASSO and least squares",
        jobs.rebuilt,
        "tiny",
        "Half of the channels of the first three layers go; the layers that read them are fitted "
        "by least squares, then all is tuned for one epoch.",
        {
            "Fitted, the LASSO's choice reaches 40.": lambda n: n["LASSO, fitted"] >= 40,
            "Fitted, the LASSO is best and a random choice worst of it, l2 and random.": lambda n: (
                n["LASSO, fitted"] >= n["l2, fitted"] >= n["random, fitted"]
            ),
            "After one epoch all choices lie within 3 points.": lambda n: spread(n, ", one") <= 3,
            "The same widths from scratch come within 2 points of the best.": lambda n: (
                max(v for k, v in n.items() if ", one" in k) - n["from scratch, four epochs"] <= 2
            ),
        },
    ),
    "neurons": Claim(
        "NISP",
        jobs.neurons,
        "lenet300",
        "Half of the hidden neurons of LeNet-300-100 go, without repair; one epoch tunes.",
        {
            "NISP is right most often, a random choice least.": lambda n: (
                n["NISP"] >= n["magnitude"] >= n["random"]
            ),
            "After one epoch it reaches 97.5.": lambda n: n["NISP, one epoch"] >= 97.5,
        },
        (0, 1, 2, 3, 4),
    ),
    "one_shot": Claim(
        "Criteria without training",
        jobs.one_shot,
        "tiny",
        "A quarter of the channels of the first three layers goes.",
        {
            "Unrepaired, l2, FPGM, NISP and scales beat random choices by 10.": lambda n: (
                min(n[f"{c}, nothing repaired"] for c in CRITERIA)
                >= n["random, nothing repaired"] + 10
            ),
        },
    ),
    "slim": Claim(
        "Network slimming: half of the channels for nothing",
        jobs.slim,
        "lenet5-bn",
        "LeNet-5 with batch norms learns two epochs under the penalty, λ = 0.001, loses half of "
        "its channels, ranked together, and is tuned for two epochs.",
        {"It loses 0.2 points at most.": lambda n: n["slimmed"] >= n["dense"] - 0.2},
    ),
    "scales": Claim(
        "Network slimming: what the penalty does",
        jobs.scales,
        "tiny",
        "Four more epochs with and without the penalty, λ = 0.003; then half of the channels of "
        "the first three layers go, ranked together, nothing repaired.",
        {
            "The penalty makes small scales, which plain training does not.": lambda n: (
                n["penalised, scales below 0.01"] > n["plain, scales below 0.01"] + 10
            ),
            "After it a cut leaves more right.": lambda n: n["penalised, cut"] > n["plain, cut"],
        },
    ),
    "discrimination": Claim(
        "Discrimination-aware pruning: the auxiliary losses help",
        jobs.discrimination,
        "tiny",
        "Three tenths of the channels go, layer by layer, nothing trained after. λ weighs the "
        "auxiliary losses beside the error of reconstruction.",
        {"λ = 1 is right more often than λ = 0.": lambda n: n["λ = 1"] >= n["λ = 0"]},
    ),
    "controls": Claim(
        "Rethinking the value of network pruning",
        jobs.controls,
        "tiny",
        "Half of every layer goes by l1, from a network trained for four epochs; a quarter of "
        "that tunes it, at 0.001 or from 0.1 down, or the same widths are trained from nothing "
        "with as many epochs (E) or as much compute (B) as the network they come from.",
        {
            "As much compute is worth more than as many epochs.": lambda n: (
                n["scratch-B"] >= n["scratch-E"]
            ),
            "A bold rate tunes better than a gentle one.": lambda n: (
                n["tuned at 0.1"] >= n["tuned at 0.001"]
            ),
            "From scratch as much is right as after tuning, within 2 points.": lambda n: (
                n["scratch-B"] >= max(n["tuned at 0.1"], n["tuned at 0.001"]) - 2
            ),
        },
    ),
}


def spread(numbers: Numbers, ending: str) -> float:
    """Return how far the numbers of such a kind lie apart."""
    found = [value for name, value in numbers.items() if ending in name]
    return max(found) - min(found)


Runs = Mapping[str, Mapping[int, Numbers]]
"""Claim → seed → what was measured."""

HEAD = """# Channels, kernels and fibres: what the papers claim, on small networks

What each paper says of its own method, tried where it can be tried in minutes; the methods side
by side are in [channels.md](channels.md). Shares of the test images that are right, in %, mean ±
standard deviation over seeds. MNIST: 55,000 images to learn from; CIFAR-10: 45,000, compressed
again at quality 75, cropped and mirrored. A claim holds or not by the means over seeds.
"""
WORDS = "## What to make of it\n"
MADE = "Made by `python bench/channel_claims.py --data-dir DATA`.\n"


def page(results: Runs, below: str = "") -> str:
    """Write what has been measured so far as one Markdown page; `below` is a person's words."""
    parts = [HEAD, "CLAIMS\n"]
    held = total = 0
    for name, claim in CLAIMS.items():
        runs = list(results.get(name, {}).values())
        if not runs:
            continue
        means = {key: mean(run[key] for run in runs) for key in runs[0]}
        said = {text: holds(means) for text, holds in claim.checks.items()}
        held, total = held + sum(said.values()), total + len(said)
        rows = [("", "right %"), *((key, shown([r[key] for r in runs])) for key in means)]
        parts += [f"## {claim.title}\n", f"{claim.about} Seeds: {len(runs)}.\n"]
        parts += [aligned(rows), ""]
        parts += [f"- {'Holds' if ok else '**Does not hold**'}: {t}" for t, ok in said.items()]
        parts.append("")
    parts[1] = f"{held} of {total} claims hold.\n"
    if absent := [CLAIMS[name].title for name in CLAIMS if not results.get(name)]:
        parts.append(f"Not measured yet: {'; '.join(absent)}.\n")
    parts += [f"{WORDS}\n{below}\n"] if below else []
    return "\n".join([*parts, MADE])


def place_of(out: Path, claim: str, seed: int) -> Path:
    """Say where the record of a claim is."""
    return out / f"{claim}-{seed}.json"


def recall(lines: Path, out: Path) -> None:
    """Lay the records of earlier runs out, so that they are not made again."""
    for line in lines.read_text().splitlines() if lines.exists() else ():
        record = json.loads(line)
        place = place_of(out, record["claim"], record["seed"])
        if not place.exists():
            write_whole(place, json.dumps(record["found"], indent=1) + "\n")


def collect(out: Path) -> dict[str, dict[int, Numbers]]:
    """Read what is there."""
    found: dict[str, dict[int, Numbers]] = {}
    for name, claim in CLAIMS.items():
        places = {seed: place_of(out, name, seed) for seed in claim.seeds}
        found[name] = {s: json.loads(p.read_text()) for s, p in places.items() if p.exists()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("SECATEURS_DATA"))
    parser.add_argument("--out", type=Path, default=Path("runs/channel-claims"))
    parser.add_argument("--only", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    parser.add_argument("--seeds", type=int, nargs="+", help="of each claim's own; all if left out")
    parser.add_argument("--collect", action="store_true", help="compute nothing")
    parser.add_argument("--epochs", type=int, help="of any training, at most: a quick look")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--page", type=Path, default=Path("docs/results/channel-claims.md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = args.page.with_suffix(".jsonl")
    recall(lines, args.out)
    for name in () if args.collect else args.only:
        claim = CLAIMS[name]
        for seed in (s for s in claim.seeds if args.seeds is None or s in args.seeds):
            if place_of(args.out, name, seed).exists():
                continue
            lab = lab_of(claim.net, name, seed, args.out, args.data_dir, args.epochs)
            found = claim.job(lab)
            write_whole(place_of(args.out, name, seed), json.dumps(found, indent=1) + "\n")
            listed = ", ".join(f"{key} {value:.2f}" for key, value in found.items())
            print(f"{name}, seed {seed}: {listed}", flush=True)
    results = collect(args.out)
    records = (
        json.dumps({"claim": name, "seed": seed, "found": found}, ensure_ascii=False)
        for name, runs in results.items()
        for seed, found in runs.items()
    )
    write_whole(lines, "".join(f"{line}\n" for line in records))
    write_whole(args.page, page(results, own_words(args.page, WORDS, MADE)))


if __name__ == "__main__":
    main()
