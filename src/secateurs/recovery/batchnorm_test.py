import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError
from secateurs.recovery.batchnorm import recalibrate_


def some_batches(n=3, size=8):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(size, 2, 4, 4, generator=generator) + i, None) for i in range(n)]


def test_statistics_become_the_plain_average_of_those_of_the_batches():
    net, batches = nn.BatchNorm2d(2, momentum=0.3), some_batches()
    assert recalibrate_(net, batches) == 1
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x, _ in batches])
    variances = torch.stack([x.var(dim=(0, 2, 3)) for x, _ in batches])
    torch.testing.assert_close(net.running_mean, means.mean(dim=0))
    torch.testing.assert_close(net.running_var, variances.mean(dim=0))


def test_a_second_norm_sees_the_first_one_as_it_normalises_batches():
    net, (batch, *_) = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2)), some_batches()
    recalibrate_(net, [batch])
    torch.testing.assert_close(net[1].running_mean, torch.zeros(2), atol=1e-6, rtol=0)


def test_old_statistics_leave_no_trace():
    fresh, old = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    old.running_mean += 100
    recalibrate_(fresh, some_batches()), recalibrate_(old, some_batches())
    assert torch.equal(fresh.running_mean, old.running_mean)


def test_modes_momenta_and_weights_stay():
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, momentum=0.3), nn.Dropout())
    net[1].eval()
    weights = [p.clone() for p in net.parameters()]
    recalibrate_(net, some_batches())
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert net[1].momentum == 0.3
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


def test_dropout_is_off():
    net = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(2))
    alone = nn.BatchNorm2d(2)
    recalibrate_(net, some_batches()), recalibrate_(alone, some_batches())
    assert torch.equal(net[1].running_var, alone.running_var)


def test_a_model_without_batch_norms_is_not_run():
    class Fails(nn.Module):
        def forward(self, x):
            raise AssertionError

    assert recalibrate_(Fails(), some_batches()) == 0
    assert recalibrate_(nn.BatchNorm2d(2, track_running_stats=False), []) == 0


def test_only_so_many_batches_are_read():
    net, three = nn.BatchNorm2d(2), some_batches()
    recalibrate_(net, three, batches_max=1)
    torch.testing.assert_close(net.running_mean, three[0][0].mean(dim=(0, 2, 3)))


def test_no_batches_are_refused_and_the_old_statistics_return():
    net = nn.BatchNorm2d(2)
    net.running_mean += 7
    with pytest.raises(PruneError, match="without batches; the loader is empty"):
        recalibrate_(net, [])
    assert net.running_mean.tolist() == [7, 7]


def test_a_channel_masked_to_zero_stays_silent():
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter[0] = 0
    recalibrate_(net, some_batches())
    out = net.eval()(some_batches()[0][0])
    assert out[:, 0].count_nonzero() == 0
    assert out.isfinite().all()
