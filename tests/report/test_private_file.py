import pytest

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.private_file import OWN, write_private


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def put(text):
    return lambda file: file.write(text.encode())


def test_a_file_is_its_owners_alone_and_replaced_only_if_asked(out, tmp_path):
    path = tmp_path / "page.html"
    write_private(str(out), path, put("one"), replace=False)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SummaryError, match=r"exists; give another path, or replace it with --force"):
        write_private(str(out), path, put("two"), replace=False)
    assert path.read_text() == "one"
    path.chmod(0o644)
    write_private(str(out), path, put("two"))
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(SummaryError, match="exists"):
        write_private(str(out), link, put("three"), replace=False)
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize("name", sorted(OWN))
def test_the_cohorts_files_stay(out, name):
    with pytest.raises(SummaryError, match="belongs to the cohort"):
        write_private(str(out), out / name, put("x"))


def test_a_path_that_cannot_be_written_is_named(out, tmp_path):
    with pytest.raises(SummaryError, match=r"missing/page.html cannot be written"):
        write_private(str(out), tmp_path / "missing/page.html", put("x"))
