import tracemalloc

from secateurs.realise.coding.fuzz import corpus, mutants, outcome
from secateurs.realise.coding.native import native

COUNT = 10_000 if native() is not None else 200


def test_ten_thousand_damaged_files_decode_or_are_refused_in_one_sentence():
    outcomes = [outcome(blob) for blob in mutants(COUNT, seed=0)]
    refused = [message for message in outcomes if message != "decoded"]
    assert len(refused) > COUNT / 2
    assert all(message.startswith("the file") and "\n" not in message for message in refused)


def test_damaged_files_ask_for_little_memory():
    files = list(mutants(COUNT // 25, seed=1))
    tracemalloc.start()
    for blob in files:
        outcome(blob)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


def test_the_parents_are_whole():
    assert {outcome(blob) for blob in corpus()} == {"decoded"}
