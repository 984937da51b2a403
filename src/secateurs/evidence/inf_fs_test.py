import pytest
import scipy.stats
import torch
from torch import Generator

from secateurs.core.errors import EvidenceError
from secateurs.evidence.inf_fs import inf_fs, path_sums, spearman


def test_the_paths_of_a_rank_one_graph_by_hand():
    u = torch.tensor([1.0, 2.0, 3.0])
    assert path_sums(torch.outer(u, u)).tolist() == pytest.approx([3.857, 7.714, 11.571], abs=1e-3)
    assert path_sums(torch.outer(u, u)).tolist() == pytest.approx((9 * u * 6 / 14).tolist())


def test_the_inverse_is_the_sum_of_all_powers():
    links = torch.rand(6, 6, generator=Generator().manual_seed(0), dtype=torch.float64)
    links = links + links.t()
    step = 0.9 * links / torch.linalg.eigvalsh(links).max()
    power, total = step.clone(), torch.zeros_like(step)
    for _ in range(600):
        total, power = total + power, power @ step
    torch.testing.assert_close(path_sums(links), total.sum(dim=1), rtol=1e-9, atol=0)


def test_a_graph_without_links_scores_nothing():
    assert path_sums(torch.zeros(3, 3)).tolist() == [0, 0, 0]


def test_rank_correlations_agree_with_scipy_also_for_ties():
    features = torch.randint(0, 4, (30, 5), generator=Generator().manual_seed(0)).double()
    expected = torch.tensor(scipy.stats.spearmanr(features.numpy()).statistic)
    torch.testing.assert_close(spearman(features), expected)


def test_a_feature_that_never_changes_scores_least():
    features = torch.randn(50, 4, generator=Generator().manual_seed(0))
    features[:, 2] = 7.0
    assert inf_fs(features).argmin() == 2
    assert bool(inf_fs(features).isfinite().all())


def test_of_equally_varying_features_a_copy_scores_below_one_of_its_own():
    features = torch.randn(200, 4, generator=Generator().manual_seed(0))
    features[:, 1] = features[:, 0]
    features = (features - features.mean(0)) / features.std(0)
    scores = inf_fs(features, alpha=0.1)
    assert scores[:2].max() < scores[2:].min()


def test_one_sample_is_not_enough():
    with pytest.raises(EvidenceError, match="over 1 sample; give two or more"):
        inf_fs(torch.ones(1, 3))
