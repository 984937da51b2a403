"""How one product is computed, and what was measured to decide it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """How one product is computed."""

    together: int = 1
    """Filters that share offsets; 0 leaves the product to torch's dense kernel."""
    vectors: int = 8
    """Vectors of output positions that are computed at a time."""
    block: int = 1 << 30
    """Input channels that are finished before the next ones."""
    bits: int = 32
    """Of a stored weight: 32, or 8 with one scale a filter."""


DENSE = Choice(together=0, vectors=0, block=0)


@dataclass(frozen=True)
class Chosen:
    """One product: what it keeps, what was measured, and what was chosen."""

    choice: Choice
    density: float
    """Fraction of its weights that are not zero."""
    stored: float
    """Values the kernel multiplies with, zeros included, over the layer's weights."""
    sparse_s: float
    """Seconds of the fastest sparse kernel."""
    dense_s: float
    """Seconds of torch's kernel on the same input, in the memory layout it likes best."""

    @property
    def sparse(self) -> bool:
        """Whether the sparse kernel was chosen."""
        return self.choice.together > 0

    @property
    def speedup(self) -> float:
        """How many times faster the chosen kernel is than the dense one."""
        return self.dense_s / self.sparse_s if self.sparse else 1.0
