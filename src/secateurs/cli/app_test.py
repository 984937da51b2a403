import json
import sys

import pytest

from secateurs.cli import comparing, jobs
from secateurs.cli.app import main

PRUNE = ["prune", "digits_cnn", "--data", "digits", "--dense-epochs", "1"]


def secateurs(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["secateurs", *words])
    monkeypatch.setenv("COLUMNS", "200")
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    said = capsys.readouterr()
    return code, said.out, said.err


def ran(folder, *words):
    """Prune a network whose training nobody waits for, and return the run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        whole = ["secateurs", *PRUNE, *words, "--epochs", "0", "--out", str(folder)]
        patch.setattr(sys, "argv", whole)
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    return lambda *words: secateurs(monkeypatch, capsys, *words)


COMMANDS = (
    "demo",
    "train",
    "prune",
    "compare",
    "bench",
    "accelerate",
    "export",
    "pack",
    "unpack",
    "inspect",
    "plan",
    "methods",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"secateurs {command}" in out.partition("Example:")[2]


def test_the_version_is_printed(call):
    code, out, _ = call("--version")
    assert (code, out.split()[0]) == (0, "secateurs")


def test_methods_are_listed_and_shown_with_paper_and_options(call):
    assert "magnitude" in call("methods")[1]
    code, out, _ = call("methods", "magnitude")
    assert code == 0
    assert "Source: Han et al. 2015" in out
    assert "ranking" in out


def test_a_number_among_the_options_is_shown_with_its_range(call):
    lines = call("methods", "fpgm")[1].splitlines()
    assert any("mix" in line and "float, 0 to 1" in line for line in lines)


def test_inspect_says_what_can_go_and_what_stays_and_why(call):
    code, out, _ = call("inspect", "digits_cnn")
    assert code == 0
    assert "stem.0.weight:0" in out
    assert "fc.weight" in out
    assert "output" in out


def test_inspect_says_how_predictable_the_weights_are(call):
    code, out, _ = call("inspect", "digits_cnn", "--redundancy")
    assert code == 0
    shown = out.partition("predicted")[2].partition("can be removed")[0]
    assert shown.count("%") >= 4


def test_a_plan_may_keep_multiples_only(call, tmp_path):
    place = tmp_path / "plan.json"
    words = ("--density", "0.4", "--multiple-of", "8", "--out", str(place))
    assert call("plan", "digits_cnn", *words)[0] == 0
    lines = json.loads(place.read_text())["lines"]
    assert any(line["keep"] < line["units"] for line in lines)
    assert all(line["keep"] % 8 == 0 or line["keep"] == line["units"] for line in lines)


def test_a_plan_is_written_edited_and_carried_out(call, tmp_path):
    place = tmp_path / "plan.json"
    code, out, _ = call("plan", "digits_cnn", "--density", "0.5", "--out", str(place))
    assert code == 0
    assert "16 of 32" in out
    plan = json.loads(place.read_text())
    plan["lines"][0]["keep"] = 7
    place.write_text(json.dumps(plan))
    code, _, _ = call(*PRUNE, "--epochs", "0", "--plan", str(place), "--out", f"{tmp_path}/run")
    assert code == 0
    sheet = json.loads((tmp_path / "run" / "planned.json").read_text())
    assert sheet["parameters"]["stem.0.weight"]["shape"][0] == 7


def test_what_says_how_much_stays_is_said_once(call, tmp_path):
    out = ("--out", str(tmp_path / "run"))
    words = ("--plan", "plan.json", "--macs", "0.5", "--multiple-of", "8")
    code, _, error = call(*PRUNE, *words, *out)
    assert code == 2
    assert "--plan says how much stays; leave --macs and --multiple-of out" in error
    code, _, error = call(*PRUNE, "--max-drop", "0.5", "--macs", "0.5", *out)
    assert code == 2
    assert "a file's size says how much stays; leave --macs out" in error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["inspect", "resnet21"], "unknown model 'resnet21'; did you mean"),
        (["inspect", "lenet5", "--input", "x"], "--input 'x' is not a shape"),
        (["plan", "digits_cnn", "--density", "1", "--out", "/dev/null/p"], "cannot write"),
        (
            ["plan", "digits_cnn", "--density", "1", "--classes", "0"],
            "Invalid value for '--classes'",
        ),
        ([*PRUNE, "--density", "0.5", "-o", "rounds=0", "--out", "{}/r"], "rounds is 0; use 1 or"),
        (["methods", "magic"], "unknown method 'magic'"),
        (["bench", "nowhere"], "'nowhere' holds no run"),
        (["bench", "nowhere", "--engine", "sparse"], "'nowhere' holds no run"),
        (["bench", "nowhere", "--engine", "steam"], "unknown engine 'steam'; use torch or sparse"),
        (["bench", "nowhere", "--weights", "int8"], "--weights 'int8' needs --engine sparse"),
        (["accelerate", "nowhere", "--out", "{}/f.secz"], "'nowhere' holds no run"),
        (["accelerate", "nowhere", "--out", "{}/f", "--weights", "int4"], "unknown weights 'int4'"),
        (["accelerate", "nowhere", "--out", "{}"], "is there already; choose another --out"),
        ([*PRUNE, "--macs", "0.5", "--for", "speed", "--out", "{}/r"], "at a density; pass"),
        ([*PRUNE, "--density", "0.5", "--for", "art", "--out", "{}/r"], "unknown aim 'art'"),
        ([*PRUNE, "--out", "{}/r"], "exactly one of --density, --macs, --params"),
        ([*PRUNE, "--density", "2", "--out", "{}/r"], "density 2 is not a fraction"),
        ([*PRUNE, "--macs", "0.5", "--out", "{}/r"], "use --density, or --granularity out_channel"),
        (
            [*PRUNE, "--macs", "0.0001", "--granularity", "out_channel", "--out", "{}/r"],
            "can be reached",
        ),
        ([*PRUNE, "--density", "0.5", "-o", "rounds", "--out", "{}/r"], "is not NAME=VALUE"),
        ([*PRUNE, "--density", "0.5", "--control", "x", "--out", "{}/r"], "unknown control 'x'"),
        ([*PRUNE, "--density", "0.5", "-o", "rounds=x", "--out", "{}/r"], "use a whole number"),
        ([*PRUNE, "--density", "0.5", "--granularity", "atom", "--out", "{}/r"], "'atom'; use one"),
        (
            [*PRUNE, "--density", "0.5", "--data-dir", "x", "--data", "mnist", "--out", "{}/r"],
            "mnist",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(call, tmp_path, words, says):
    code, _, err = call(*(w.format(tmp_path) for w in words))
    assert code == 2
    assert says in " ".join(err.split())


@pytest.mark.parametrize(
    ("where", "what", "words", "again"),
    [
        (jobs, "run", ["demo"], "command with --resume goes on in"),
        (jobs, "smallest", [*PRUNE, "--max-drop", "1"], "command with --resume goes on in"),
        (comparing, "points", ["compare", "method", "digits_cnn", "--data", "digits"],
         "the same command goes on in"),
    ],
)  # fmt: skip
def test_an_interrupted_run_says_how_to_go_on(
    call, tmp_path, monkeypatch, where, what, words, again
):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, what, interrupted)
    code, _, err = call(*words, "--out", str(tmp_path / "run"))
    assert code == 130
    assert again in " ".join(err.split())
