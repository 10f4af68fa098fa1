"""The draw of test shapes: some of every category, whole groups of near-duplicates."""

from __future__ import annotations

from modeling_ulip2.data.splits import draw_test_ids


def test_every_category_is_in_training_and_test() -> None:
    labels = {f"chair{i}": "chair" for i in range(10)} | {"lamp0": "lamp", "lamp1": "lamp", "harp": "harp"}
    ids = [*labels, *(f"thing{i}" for i in range(20))]
    alone = {name: name for name in ids}
    test = draw_test_ids(ids, labels, 0, alone)
    drawn = [labels.get(name, "") for name in test]
    assert drawn.count("chair") == 2 and drawn.count("lamp") == 1 and drawn.count("") == 4
    assert "harp" not in test  # a category of one shape stays in training
    assert test == draw_test_ids(ids[::-1], labels, 0, alone)
    assert test != draw_test_ids(ids, labels, 1, alone)


def test_a_split_never_cuts_through_near_duplicates() -> None:
    labels = {f"chair{i}": "chair" for i in range(10)} | {f"sofa{i}": "sofa" for i in range(4)}
    groups = {name: name for name in labels} | dict.fromkeys(["chair0", "chair1", "chair2"], "chair0")
    groups |= dict.fromkeys(["sofa0", "sofa1", "sofa2", "sofa3"], "sofa0")
    sizes = set()
    for seed in range(20):
        test = draw_test_ids(list(labels), labels, seed, groups)
        assert len({groups[name] for name in test} & {groups[name] for name in labels.keys() - test}) == 0
        assert not any(name.startswith("sofa") for name in test)  # one group: it stays in training
        sizes.add(len(test))
    assert sizes == {2}
