import importlib.util
from pathlib import Path

import numpy as np

spec = importlib.util.spec_from_file_location("coding", Path(__file__).with_name("coding.py"))
coding = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coding)


def test_levels_keep_every_weight_and_no_zero():
    q = coding.levels(np.array([0, 1e-9, -0.5, 1.0]), bits=3)
    assert q.tolist() == [0, 1, -2, 3]


def test_the_context_coder_beats_huffman_even_where_places_are_random():
    row = coding.row("fc1", coding.synthetic((60, 784), 0.05, 5, seed=0))
    assert row["context"] < 0.97 * row["huffman"]
    assert "context / huffman" in coding.table([row])


def test_the_context_coder_is_a_tenth_under_huffman_where_some_inputs_matter_more():
    rng = np.random.default_rng(0)
    seen = np.exp(-(((np.arange(784) % 28 - 14) / 6) ** 2 + ((np.arange(784) // 28 - 14) / 6) ** 2))
    kept = rng.random((60, 784)) < 0.22 * seen
    row = coding.row("fc1", np.where(kept, rng.integers(1, 16, (60, 784)), 0).astype(np.int32))
    assert 0.03 < row["kept"] / row["weights"] < 0.07
    assert row["context"] < 0.9 * row["huffman"]
