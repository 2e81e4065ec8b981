import pytest

from deeplift_fast.cli.sizes import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1000B", 1000),
        ("8GB", 8 * 10**9),
        ("1.5 kB", 1500),
        ("512MiB", 512 << 20),
        ("2g", 2 * 10**9),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1GB", "GB", "8 apples", "1e3", "0.1", "nan"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=r"--memory is .*accepted: a size above 0"):
        parse_bytes(text)
