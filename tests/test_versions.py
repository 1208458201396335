"""Numbers of versions: complete folders, never the same number twice."""

import os
import shutil

import pytest

from skipnet_tf import versions


def write(directory):
    """Writes a version and returns its number."""
    with versions.new_version(str(directory)) as (folder, version):
        with open(os.path.join(folder, "content"), "w") as file:
            file.write(version)
    return os.path.basename(version)


def listed(directory):
    """What a server would see, in order."""
    return sorted(n for n in os.listdir(directory) if n.isdecimal())


def test_versions_count_from_one(tmp_path):
    directory = tmp_path / "made" / "if missing"
    assert [write(directory) for _ in range(11)] == [
        str(number) for number in range(1, 12)
    ]
    content = (directory / "11" / "content").read_text()
    assert content == str(directory / "11")


def test_a_version_appears_when_it_is_complete(tmp_path):
    with versions.new_version(str(tmp_path)) as (folder, version):
        assert listed(tmp_path) == []
        assert os.path.isdir(folder) and not os.path.exists(version)
        # Servers take folders whose names are integers.
        assert not os.path.basename(folder).isdecimal()
    assert listed(tmp_path) == ["1"]
    assert not os.path.exists(folder)


@pytest.mark.parametrize(
    "error", [ValueError("wrong"), KeyboardInterrupt(), SystemExit(1)]
)
def test_an_interrupted_version_leaves_nothing_to_serve(tmp_path, error):
    with pytest.raises(type(error)):
        with versions.new_version(str(tmp_path)) as (folder, _):
            os.mkdir(os.path.join(folder, "variables"))
            raise error
    assert [n for n in os.listdir(tmp_path) if not n.startswith(".")] == []
    assert write(tmp_path) == "2"


def test_what_a_killed_process_left_is_passed_over(tmp_path):
    write(tmp_path)
    (tmp_path / "2.writing").mkdir()
    (tmp_path / "2.writing" / "content").write_text("half")
    assert write(tmp_path) == "3"
    assert listed(tmp_path) == ["1", "3"]
    assert (tmp_path / "2.writing" / "content").read_text() == "half"


def test_numbers_of_removed_versions_are_not_given_again(tmp_path):
    assert [write(tmp_path) for _ in range(3)] == ["1", "2", "3"]
    for name in ("3", "2"):
        shutil.rmtree(tmp_path / name)
    assert write(tmp_path) == "4"
    shutil.rmtree(tmp_path / "4")
    shutil.rmtree(tmp_path / "1")
    assert write(tmp_path) == "5"


def test_two_exports_at_once_get_two_numbers(tmp_path):
    with versions.new_version(str(tmp_path)) as (first, first_version):
        with versions.new_version(str(tmp_path)) as (second, second_version):
            assert first != second
    names = [os.path.basename(v) for v in (first_version, second_version)]
    assert names == ["1", "2"]
    assert listed(tmp_path) == names


def test_an_export_that_others_overtake_takes_the_next_number(
    tmp_path, monkeypatch
):
    # Another process reserves 1, and 2 is even finished, after we looked.
    (tmp_path / "1.writing").mkdir()
    (tmp_path / "2").mkdir()
    seen = iter([[], ["1.writing"]])
    real = os.listdir
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda path: next(seen, real(path)))
        assert write(tmp_path) == "3"
    assert listed(tmp_path) == ["2", "3"]
    assert not (tmp_path / "2.writing").exists()


def test_other_names_are_no_numbers(tmp_path):
    for name in ("old", "7.bak", "tmp.8", ".9"):
        (tmp_path / name).mkdir()
    assert write(tmp_path) == "1"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for directory in (file, file / "in"):
        with pytest.raises(ValueError, match="`directory`.*Received.*file"):
            write(directory)
    assert file.read_text() == ""
