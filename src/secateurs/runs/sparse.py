"""What the sparse run time makes of a pruned model, in one sentence for the report."""

from torch import nn

from secateurs.core.errors import PruneError
from secateurs.core.example import Example
from secateurs.measure.human import duration
from secateurs.realise.sparse.accelerate import accelerate
from secateurs.realise.sparse.accelerated import Accelerated

_ROUNDS = 5


def sparse_note(label: str, model: nn.Module, example: Example, threads: int = 1) -> str:
    """Time a model of zeros in the sparse run time, and say what came of it."""
    try:
        return f"{label}: {sentence(accelerate(model, example, threads=threads, rounds=_ROUNDS))}"
    except PruneError as error:
        return f"{label}: not timed in the sparse run time: {error}."


def sentence(fast: Accelerated) -> str:
    """Say how the whole compares with the faster of torch's dense layouts, timed side by side."""
    sparse, dense = fast.latency["sparse"], fast.latency[fast.best_dense]
    skipping = sum(line.chosen.sparse for line in fast.plan)
    threads = f"{sparse.threads} thread{'s' if sparse.threads > 1 else ''}"
    passes = f" in {fast.passes} passes" if fast.passes > 1 else ""
    told = (
        f"the sparse run time skips the zeros of {skipping} of {len(fast.plan)} layers: "
        f"{duration(sparse.median_s)} against {duration(dense.median_s)} ({fast.best_dense}), "
        f"{sparse.batch} at once{passes} on {threads}, {fast.speedup.verdict}"
    )
    return f"{told}; dense kernels run instead." if fast.dense is not None else f"{told}."
