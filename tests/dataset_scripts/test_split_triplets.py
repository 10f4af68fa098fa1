import json
from pathlib import Path

import pytest

from modeling_ulip2.building.splitting import main
from modeling_ulip2.data.splits import family, split_families

IDS = [f"crops/Lettuce_{n}.glb" for n in range(10)] + [f"pack/{name}.glb" for name in "ABCDEFGHIJ"]


def test_numbers_alone_make_no_other_family():
    assert family("crops/Lettuce_4.glb") == family("crops/lettuce12.glb") == "crops/lettuce"
    assert family("crops/Lettuce.glb") != family("farm/Lettuce.glb")
    assert family("scans/001.ply") != family("scans/002.ply")


def test_a_family_stays_together_and_nothing_is_lost():
    for seed in range(20):
        split = split_families(IDS, 0.3, seed)
        assert sorted(split["train"] + split["test"]) == sorted(IDS)
        assert not {family(shape) for shape in split["train"]} & {family(shape) for shape in split["test"]}
        assert len(split["test"]) >= 0.3 * len(IDS)


def test_the_draw_depends_on_the_seed_alone():
    assert split_families(IDS, 0.3, 1) == split_families(reversed(IDS), 0.3, 1)
    assert len({tuple(split_families(IDS, 0.3, seed)["test"]) for seed in range(10)}) > 1


@pytest.mark.parametrize(("ids", "share", "message"), [(IDS, 1.5, "between 0 and 1"), (IDS[:10], 0.2, "nothing is")])
def test_what_cannot_be_divided(ids, share, message):
    with pytest.raises(ValueError, match=message):
        split_families(ids, share, 0)


def test_the_command(tmp_path: Path, built: Path, capsys):
    main([str(built), str(tmp_path / "new" / "split.json"), "--share", "0.4"])
    split = json.loads((tmp_path / "new" / "split.json").read_text())
    assert len(split["train"]) == 3 and len(split["test"]) == 3  # 0.4 of six shapes, rounded up
    assert "3 shapes to train on" in capsys.readouterr().out
