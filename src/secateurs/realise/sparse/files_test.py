"""Files of accelerated networks: what is saved comes back, and what was tampered with does not."""

import copy
from dataclasses import replace

import pytest
import torch

from secateurs.core.errors import FileError, PruneError
from secateurs.models.create import create
from secateurs.realise.coding import container
from secateurs.realise.coding.container import read
from secateurs.realise.sparse import accelerate, available, files, native
from secateurs.realise.sparse.choice import DENSE, Choice
from secateurs.realise.sparse.files import load_accelerated
from secateurs.realise.sparse.networks_test import pruned

pytestmark = pytest.mark.skipif(not available(), reason="no C compiler at installation")
X = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def write(path, tensors, recipe):
    container.write(path, tensors, recipe, indices=["all"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An accelerated network with a choice of every kind, and its file."""
    model = accelerate(pruned(create("digits_cnn")), X, threads=2, cache=None, rounds=0)
    choices = (DENSE, Choice(4, 2, 3), Choice(2, 3), Choice(1, 1))
    names = sorted(model.chosen)
    plan = {
        name: replace(model.chosen[name], choice=choices[i % 4]) for i, name in enumerate(names)
    }
    model = type(model)(
        model.program, model.names, X, plan, instructions=model.instructions, threads=2
    )
    path = tmp_path_factory.mktemp("files") / "fast.secz"
    assert model.save(path) == path.stat().st_size
    return model, path


def test_what_is_loaded_has_the_same_weights_and_makes_the_same_output(saved):
    model, path = saved
    again = load_accelerated(path)
    assert torch.equal(again(X), model(X))
    assert (again.threads, again.instructions) == (2, model.instructions)
    assert again.chosen == model.chosen
    assert [(p.param, p.shape) for p in again.plan] == [(p.param, p.shape) for p in model.plan]
    for name, tensor in model.engine.constants.items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(again.engine.constants[name], tensor)


def test_what_was_loaded_says_that_it_was_not_timed_here(saved):
    again = load_accelerated(saved[1], threads=1)
    assert again.threads == 1
    with pytest.raises(PruneError, match="not timed on this machine"):
        again.speedup  # noqa: B018


def test_what_was_slower_than_dense_stays_dense(saved, tmp_path):
    model, _ = saved
    model.dense = model.program
    try:
        model.save(tmp_path / "slow.secz")
    finally:
        model.dense = None
    again = load_accelerated(tmp_path / "slow.secz")
    assert "slower when it was saved" in repr(again)
    assert torch.equal(again(X), model.program(X))


@pytest.mark.parametrize("made_on", ["avx512", "avx2", "plain"])
def test_a_file_of_another_machine_runs_with_what_there_is(saved, tmp_path, monkeypatch, made_on):
    model, path = saved
    contents = read(path)
    recipe = {**contents.recipe, "instructions": made_on, "best": made_on != "plain"}
    for chosen in recipe["choices"].values():
        chosen["choice"]["vectors"] = 12 if chosen["choice"]["together"] else 0
    write(tmp_path / "other.secz", contents.tensors, recipe)
    monkeypatch.setattr(native, "available", lambda: available()[-1:])  # plain alone
    again = load_accelerated(tmp_path / "other.secz")
    assert again.instructions == "plain"
    for chosen in again.chosen.values():
        together = chosen.choice.together
        assert not together or chosen.choice.vectors == native.widest("plain", together)
    assert torch.allclose(again(X), model(X), atol=1e-5)


def first(recipe, kind):
    """Return the choice of a layer that shares between so many filters, and its name."""
    return next((c, n) for n, c in recipe["choices"].items() if c["choice"]["together"] == kind)


def node(recipe, target):
    return next(n for n in recipe["program"] if n["target"].startswith(target))


def put(place, **values):
    place.update(values)


def without(table, key):
    del table[key]


MUTATIONS = {
    "kind": lambda r: put(r, kind="other"),
    "kind, next": lambda r: put(r, kind="secateurs.accelerated/2"),
    "'more' is no field": lambda r: put(r, more=1),
    "'threads' is missing": lambda r: without(r, "threads"),
    "threads: '0'": lambda r: put(r, threads=0),
    "threads: 'True'": lambda r: put(r, threads=True),
    "threads: '1.5'": lambda r: put(r, threads=1.5),
    "threads: '99999'": lambda r: put(r, threads=99999),
    "instructions": lambda r: put(r, instructions="sse"),
    "instructions, ": lambda r: put(r, instructions=["avx2"]),
    "best": lambda r: put(r, best=1),
    "dense": lambda r: put(r, dense="no"),
    "names": lambda r: put(r, names=[1]),
    "names, ": lambda r: put(r["names"], **{next(iter(r["names"])): 3}),
    "names: they are": lambda r: without(r["names"], next(iter(r["names"]))),
    "inputs": lambda r: put(r, inputs={}),
    "inputs, 0": lambda r: put(r, inputs=[[[1, -1, 8, 8], "float32"]]),
    "inputs, 0: ": lambda r: put(r, inputs=[[[1 << 20, 1 << 20], "float32"]]),
    "inputs, 0 ": lambda r: put(r, inputs=[[[1, 1, 8, 8], "object"]]),
    "inputs, 0  ": lambda r: put(r, inputs=[[1, "float32"]]),
    "program": lambda r: put(r, inputs=[]),
    "program ": lambda r: put(r, inputs=[[[1, 3, 8, 8], "float32"]]),
    "program  ": lambda r: put(r, program=[]),
    "program, node 0": lambda r: put(r["program"][0], name=3),
    "program, node 1": lambda r: put(r["program"][1], name=r["program"][0]["name"]),
    "program: ": lambda r: put(r["program"][0], target="*other"),
    "program: 'call_method'": lambda r: put(node(r, "aten.relu"), op="call_method", target="numel"),
    "program: 'call_module'": lambda r: put(node(r, "aten.relu"), op="call_module", target="x"),
    "program: 'os.system.default'": lambda r: put(node(r, "aten.relu"), target="os.system.default"),
    "program: 'aten.from_file.default'": lambda r: put(
        node(r, "aten.relu"), target="aten.from_file.default", args=["/etc/passwd", False, 3]
    ),
    "program:  ": lambda r: put(node(r, "aten.relu"), target="aten.relu_.default"),
    "program:   ": lambda r: put(node(r, "aten.relu"), target="aten.zeros.default", args=[[9**9]]),
    "program   ": lambda r: put(node(r, "aten.relu"), args=[{"node": "nobody"}]),
    "program    ": lambda r: put(node(r, "aten.conv2d"), kwargs={"padding": [-9, 1]}),
    "choices": lambda r: put(r, choices=[]),
    "choices, ": lambda r: put(r["choices"], **{next(iter(r["choices"])): 7}),
    "has no choice": lambda r: without(r["choices"], next(iter(r["choices"]))),
    "'nobody' is no layer": lambda r: put(r["choices"], nobody=first(r, 1)[0]),
    "together": lambda r: put(first(r, 1)[0]["choice"], together=3),
    "together ": lambda r: put(first(r, 1)[0]["choice"], together=True),
    "together  ": lambda r: put(first(r, 1)[0]["choice"], together=-4),
    "vectors": lambda r: put(first(r, 1)[0]["choice"], vectors=13),
    "vectors ": lambda r: put(first(r, 4)[0]["choice"], vectors=0),
    "block": lambda r: put(first(r, 4)[0]["choice"], block=0),
    "block ": lambda r: put(first(r, 4)[0]["choice"], block=1 << 62),
    "block  ": lambda r: without(first(r, 4)[0]["choice"], "block"),
    "together   ": lambda r: put(first(r, 0)[0]["choice"], block=5),
    "density": lambda r: put(first(r, 4)[0], density=-1),
    "sparse_s": lambda r: put(first(r, 4)[0], sparse_s="soon"),
}


@pytest.mark.parametrize("says", MUTATIONS)
def test_a_file_that_was_tampered_with_is_one_error_that_names_the_field(
    saved, tmp_path, monkeypatch, says
):
    monkeypatch.setattr(native, "run", lambda *_: pytest.fail("a kernel ran"))
    contents = read(saved[1])
    recipe = copy.deepcopy(contents.recipe)
    MUTATIONS[says](recipe)
    write(tmp_path / "bad.secz", contents.tensors, recipe)
    with pytest.raises(FileError) as caught:
        load_accelerated(tmp_path / "bad.secz")
    assert str(tmp_path / "bad.secz") in str(caught.value)
    assert says.strip(" ,:").partition(",")[0] in str(caught.value)


def test_weights_of_another_shape_or_type_are_refused(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "run", lambda *_: pytest.fail("a kernel ran"))
    contents = read(saved[1])
    kinds = {n: t for n, t in contents.tensors.items() if n.startswith(("stem", "fc"))}
    assert len(kinds) == 7
    for name, tensor in kinds.items():
        for other in (tensor[:-1], tensor.double()):
            tensors = {**contents.tensors, name: other}
            write(tmp_path / "bad.secz", tensors, contents.recipe)
            with pytest.raises(FileError, match=r"bad\.secz, (program|choices|the layers)"):
                load_accelerated(tmp_path / "bad.secz")


def test_a_missing_weight_a_packed_model_and_no_file_are_refused(saved, tmp_path):
    contents = read(saved[1])
    (gone, *_) = contents.tensors
    few = {n: t for n, t in contents.tensors.items() if n != gone}
    write(tmp_path / "few.secz", few, contents.recipe)
    write(tmp_path / "packed.secz", contents.tensors, {"model": "digits_cnn"})
    for name, says in (("few", "program"), ("packed", "of kind None"), ("none", "cannot read")):
        with pytest.raises(FileError, match=says):
            load_accelerated(tmp_path / f"{name}.secz")


def test_without_kernels_a_file_says_how_to_get_them(saved, monkeypatch):
    monkeypatch.setattr(native, "native", lambda: None)
    with pytest.raises(PruneError, match="install a C compiler"):
        load_accelerated(saved[1])
    assert files.native.available() == []
