from secateurs.core.near import near


def test_close_names_come_nearest_first():
    assert near("lenet55", ["resnet20", "lenet300", "lenet5"]) == "did you mean lenet5, lenet300?"


def test_a_long_list_is_cut_and_counted():
    assert near("zzz", (f"m{i:02}" for i in range(9)), most=2) == "known: m00, m01 and 7 more"


def test_nothing_known_is_said():
    assert near("a", []) == "known: none"
