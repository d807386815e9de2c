"""What every room may import: the folder of the book, and digests."""

from footprint import digest, root


def test_the_root_is_the_book(monkeypatch, tmp_path):
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path / "book")
    assert root() == tmp_path
    (tmp_path / "_toc.yml").unlink()
    assert root() == tmp_path / "book"


def test_a_digest_is_twelve_digits_and_tells_texts_apart():
    assert digest("GPU-1") == digest("GPU-1") != digest("GPU-2")
    assert len(digest("")) == 12 and set(digest("GPU-1")) <= set("0123456789abcdef")
