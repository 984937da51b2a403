"""The fine-grained methods on both LeNets of their papers, over seeds.

    python bench/fine_grained.py --data-dir DATA --out runs/fine-grained
    python bench/fine_grained.py --data-dir DATA --only dns-lenet5 --seeds 0

Every job leaves one JSON file in the output folder; what is there is not done again, and a
training that was killed goes on from its last epoch. Writes docs/results/fine-grained.md.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from fine_grained_jobs import JOBS, Place, data_of
from fine_grained_page import page

from secateurs.measure.report import write_whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, default=Path("runs/fine-grained"))
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="Of any training, at most: a quick look.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", type=Path, default=Path("docs/results/fine-grained.md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.only:
        job, net = JOBS[name]
        for seed in args.seeds:
            place = args.out / f"{name}-{seed}.json"
            if place.exists():
                continue
            print(f"{name}, seed {seed}", flush=True)
            start = time.process_time()
            data = data_of(net, seed, args.data_dir)
            at = Place(args.out, args.out / f"{name}-{seed}", args.epochs)
            found = job(net, data, seed, at)
            found["cpu_seconds"] = time.process_time() - start
            write_whole(place, json.dumps(found, indent=1))
            print(f"    {json.dumps(found)}", flush=True)
    results = {
        name: {
            int(p.stem.rpartition("-")[2]): json.loads(p.read_text())
            for p in sorted(args.out.glob(f"{name}-[0-9]*.json"))
        }
        for name in JOBS
    }
    write_whole(args.page, page(results))


if __name__ == "__main__":
    main()
