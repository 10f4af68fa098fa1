import pytest

from modeling_ulip2.data.near_duplicates import extend_to_groups, near_duplicate_groups


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_is_alike_by_way_of_others_is_one_group(tmp_path):
    table = write(tmp_path / "pairs.csv", "a,b,kind", "e,x,copy", "b,d,variant", "x,b,copy")
    groups = near_duplicate_groups(list("abcde"), table)
    assert groups == {"a": "a", "b": "b", "c": "c", "d": "b", "e": "b"}
    assert near_duplicate_groups(list("abcde"), table, kinds=("copy",)) == {**groups, "d": "d"}
    assert extend_to_groups(["d", "a"], groups) == {"a", "b", "d", "e"}


def test_without_a_table_or_a_kind(tmp_path):
    assert near_duplicate_groups(["a", "b"]) == {"a": "a", "b": "b"}
    assert near_duplicate_groups(["a", "b"], write(tmp_path / "p.csv", "b,a", "a,b"), kinds=())["b"] == "a"


@pytest.mark.parametrize(
    "lines, message",
    [
        (["one,two"], "needs the columns a and b"),
        (["a,b,kind", "x,y,twin"], "line 2: kind is 'twin', not one of copy, variant"),
        (["a,b", "x,y", "x"], "line 3: an id is missing"),
    ],
)
def test_faults_are_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        near_duplicate_groups(["x"], write(tmp_path / "pairs.csv", *lines))
    with pytest.raises(ValueError, match="there is no table"):
        near_duplicate_groups(["x"], tmp_path / "nothing.csv")
