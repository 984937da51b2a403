"""Which architectures are pruned, proved, saved and exported, beside Torch-Pruning.

    python bench/coverage.py --jobs 16 --out runs/coverage           # everything
    python bench/coverage.py --only 'timm:*vit*' --out runs/coverage
    python bench/coverage.py --table --out runs/coverage             # docs/results/coverage.md

What docs/results/coverage.jsonl has is not done again, nor what lies in the output folder; to
begin anew, remove both.

Half of every prunable bucket goes, chosen at random, from models whose random weights are
scaled so that no branch is invisible. Every model runs in a process of its own and leaves one
line of JSON; a second run does only what is missing.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LINES = HERE.parent / "docs" / "results" / "coverage.jsonl"
for folder in (HERE, HERE.parent / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

Result = dict[str, Any]


def check(
    name: str, *, peer: bool = True, note: Callable[[Result], None] = lambda result: None
) -> Result:
    """Prune half of one model and say everything the table needs.

    `note` gets what is known before the peer begins, which may not end.
    """
    import torch
    from coverage_models import build

    torch.set_num_threads(1)
    result: Result = {"name": name, "torch": torch.__version__, "seconds": {}}
    try:
        model, example = timed(result, "build", lambda: build(name))
    except Exception as error:
        return {**result, "stage": "build", "error": short(error)}
    result["parameters"] = sum(p.numel() for p in model.parameters())
    try:
        _ours(result, model, example)
        result["stage"] = "done"
    except Exception as error:
        result["error"] = short(error)
        result["traceback"] = traceback.format_exc()[-3000:]
    if peer:
        from coverage_peer import torch_pruning

        note({**result, "peer": {"error": "did not end", "runs": False, "equal": False}})
        result["peer"] = torch_pruning(
            model,
            example,
            crosses=bool(result.get("crosses", True)),
            last=result.pop("last", []),
        )
    return result


def _ours(result: Result, model: Any, example: Any) -> None:
    import torch

    from secateurs.core.example import call, floats, tensors
    from secateurs.graph.trace import trace
    from secateurs.realise.calls import difference
    from secateurs.realise.checkpoint import load_checkpoint, save_checkpoint
    from secateurs.realise.compact import compact
    from secateurs.realise.units import mask_of, prunable_share

    result["stage"] = "trace"
    graph = timed(result, "trace", lambda: trace(model, example, time_limit_s=600))
    result["nodes"] = len(graph.module.graph.nodes)
    result["share"] = prunable_share(graph, dict(model.named_parameters()))
    result["last"] = [f.param for f in graph.frozen if f.reason == "reaches the model's output"]
    removed = half(graph)
    result["units"], result["chosen"] = removed.numel(), int(removed.sum())

    result["stage"] = "compact"
    mask = mask_of(graph, removed)
    small = timed(result, "compact", lambda: compact(model, graph, mask, example))
    result |= {
        "removed": sum(small.removed.values()),
        "left": sum(p.numel() for p in small.model.parameters()),
        "how": small.how,
        "parts": list(small.parts),
        "difference": small.proof.difference,
        "effect": small.proof.effect,
        "against": small.proof.against,
        "crosses": list(small.proof.crosses),
        "put_back": [[b.bucket, b.count, b.reason, b.operation] for b in small.put_back][:20],
        "put_back_units": sum(b.count for b in small.put_back),
    }

    result["stage"] = "uneven"
    mask = mask_of(graph, half(graph, uneven=True))
    again = timed(result, "uneven", lambda: compact(model, graph, mask, example))
    result["uneven"] = {
        "how": again.how,
        "parts": list(again.parts),
        "difference": again.proof.difference,
        "effect": again.proof.effect,
        "put_back_units": sum(b.count for b in again.put_back),
    }

    result["stage"] = "run"
    with torch.no_grad():
        wanted = [t.clone() for t in tensors(call(small.model.eval(), example))]
    result["runs"] = True
    if not all(bool(t.isfinite().all()) for t in wanted):
        # The weights that were scaled up overflow float32 here: what follows is in float64.
        small.model.double()
        example = floats(example, torch.float64)
        with torch.no_grad():
            wanted = [t.clone() for t in tensors(call(small.model, example))]

    result["stage"] = "save"
    with tempfile.TemporaryDirectory() as folder:

        def round_trip() -> Any:
            save_checkpoint(Path(folder) / "small", small.model)
            return load_checkpoint(Path(folder) / "small", model)

        again = timed(result, "save", round_trip)
    with torch.no_grad():
        found = tensors(call(again.eval(), example))
    result["round_trip"] = difference(found, wanted)

    result["stage"] = "export"
    from secateurs.core.example import arguments

    args, kwargs = arguments(example)
    try:
        exported = timed(
            result, "export", lambda: torch.export.export(small.model, args, kwargs, strict=False)
        )
        with torch.no_grad():
            found = tensors(exported.module()(*args, **kwargs))
        result["exported"] = difference(found, wanted) < 1e-3
    except Exception as error:
        result["exported"], result["export_error"] = False, short(error)
        try:
            torch.export.export(model, args, kwargs, strict=False)
        except Exception:  # then the original cannot be exported either
            result["exported"] = "original neither"


def half(graph: Any, seed: int = 0, *, uneven: bool = False) -> Any:
    """Choose half of every bucket at random, the same number in every pool: bool (units,).

    `uneven` takes a quarter, a half and three quarters in turn, as a global ranking would:
    widths that were equal then differ.
    """
    import torch

    removed = torch.zeros(graph.units, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for number, bucket in enumerate(graph.buckets.values()):
        part = (number % 3 + 1) / 4 if uneven else 0.5
        for pool in bucket.ids.cpu().view(-1, bucket.among or len(bucket.ids)):
            order = torch.randperm(len(pool), generator=generator)
            removed[pool[order[: int(len(pool) * part)]]] = True
    return removed


def timed(result: Result, what: str, action: Callable[[], Any]) -> Any:
    """Run something and note how long it took."""
    start = time.perf_counter()
    try:
        return action()
    finally:
        result["seconds"][what] = round(time.perf_counter() - start, 3)


def short(error: BaseException) -> str:
    """One line of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def sweep(names: Sequence[str], out: Path, *, jobs: int, limit_s: float, peer: bool) -> None:
    """Check the models that have no line yet, each in a process of its own."""
    out.mkdir(parents=True, exist_ok=True)
    todo = [n for n in names if not path_of(out, n).exists()]
    print(
        f"{len(names)} models, {len(names) - len(todo)} done before, {jobs} at a time", flush=True
    )
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for i, line in enumerate(pool.map(lambda n: _apart(n, out, limit_s, peer), todo), 1):
            print(f"{i}/{len(todo)} {line}", flush=True)


def _apart(name: str, out: Path, limit_s: float, peer: bool) -> str:
    start = time.perf_counter()
    process = _server().Process(target=_one, args=(name, out, peer))
    process.start()
    process.join(limit_s)
    late = process.is_alive()
    if late:
        process.kill()
        process.join()
    if not path_of(out, name).exists():
        error = f"over {limit_s:g} s" if late else f"process ended with {process.exitcode}"
        _write(out, {"name": name, "stage": "process", "error": error, "seconds": {}})
    result = json.loads(path_of(out, name).read_text())
    return f"{name}: {summary(result)} ({time.perf_counter() - start:.0f} s)"


PRELOADED = [
    *("coverage_models", "coverage_peer", "torchvision", "timm", "transformers", "torch_pruning"),
    *("torch._dynamo", "torch.export", "scipy.sparse.csgraph", "secateurs.realise.checkpoint"),
]


@cache
def _server() -> Any:
    """A process that has imported everything once and forks one child per model."""
    paths = [str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _one(name: str, out: Path, peer: bool) -> None:
    _write(out, check(name, peer=peer, note=lambda result: _write(out, result)))


def keep(out: Path, lines: Path) -> None:
    """Write the results of a sweep into one file, a line a model, without what takes room."""
    from secateurs.measure.report import write_whole

    found = []
    for path in sorted(out.glob("*.json")):
        result = json.loads(path.read_text())
        for name in ("traceback", "export_error", "last"):
            result.pop(name, None)
        result["put_back"] = result.get("put_back", [])[:1]
        found.append(json.dumps(result))
    write_whole(lines, "".join(line + "\n" for line in found))


def recall(lines: Path, out: Path) -> None:
    """Put the results that a file has into the folder of a sweep, where it has none of them."""
    out.mkdir(parents=True, exist_ok=True)
    for line in lines.read_text().splitlines() if lines.exists() else ():
        result = json.loads(line)
        if not path_of(out, result["name"]).exists():
            _write(out, result)


def summary(result: Result) -> str:
    """One line about one model."""
    if result.get("stage") != "done":
        return f"FAILED at {result.get('stage')}: {result.get('error')}"
    back = f", {result['put_back_units']} put back" if result["put_back_units"] else ""
    uneven = f"{result['uneven']['how']} when uneven"
    return (
        f"share {result['share']:.3f}, {result['how']}, {result['difference']:.1e}{back}, {uneven}"
    )


def path_of(out: Path, name: str) -> Path:
    """Where one model's line of JSON lies."""
    return out / f"{name.replace(':', '--')}.json"


def _write(out: Path, result: Result) -> None:
    path = path_of(out, result["name"])
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(result) + "\n")
    os.replace(partial, path)


def main() -> None:
    """Read the command line."""
    from coverage_models import names
    from coverage_table import write_table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/coverage"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--only", nargs="+", default=["*"], help="patterns of model names, 'timm:*vit*'"
    )
    parser.add_argument("--limit", type=float, default=900, help="seconds per model")
    parser.add_argument("--no-peer", action="store_true", help="leave Torch-Pruning out")
    parser.add_argument("--table", action="store_true", help="write docs/results/coverage.md")
    parser.add_argument("--redo", action="store_true", help="check again what failed")
    options = parser.parse_args()
    recall(LINES, options.out)
    if not options.table:
        chosen = list(dict.fromkeys(n for pattern in options.only for n in names(pattern)))
        if options.redo:
            for path in (path_of(options.out, n) for n in chosen):
                if path.exists() and json.loads(path.read_text()).get("stage") != "done":
                    path.unlink()
        sweep(
            chosen,
            options.out,
            jobs=options.jobs,
            limit_s=options.limit,
            peer=not options.no_peer,
        )
    if options.table or options.only == ["*"]:
        write_table(options.out, LINES.with_suffix(".md"))
        keep(options.out, LINES)


if __name__ == "__main__":
    main()
