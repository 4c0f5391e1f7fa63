"""Texts and paths that users spell in several ways mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import suite

from bench import registry
from bench.errors import BenchError, some, unknown
from bench.experiment.config import read_experiment
from bench.experiment.prompt_file import with_prompts
from bench.experiment.tuned import read_tuned
from bench.machine.spelling import lines_of, plain_corpus, same_corpus, trimmed

BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "text", ["\ufeffa poster", " \ufeff a poster\ufeff\n", "a poster\u2003", "\n\ufeff\ufeffa poster"]
)
def test_marks_and_spaces_around_a_text_mean_nothing(text):
    assert trimmed(text) == "a poster"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_where_an_editor_ends_it(end):
    text = end.join(["\ufeffa poster", "", "two\u2028lines\x85of\x0btext", "\ufeff", " last"])
    assert lines_of(text.encode()) == ["a poster", "two\u2028lines\x85of\x0btext", "last"]


def test_prompts_have_no_byte_order_mark(tmp_path):
    (tmp_path / "p.txt").write_bytes(BOM + b"a poster\r\na cat\r\n" + BOM + b"a dog")
    assert with_prompts(suite(), tmp_path / "p.txt").texts() == ["a poster", "a cat", "a dog"]


def test_prompts_that_are_no_utf8_end_in_one_line(tmp_path):
    (tmp_path / "p.txt").write_text("a poster\n", encoding="utf-16")
    with pytest.raises(BenchError, match=r"the prompts .*p\.txt cannot be read: .*; save the file as UTF-8"):
        with_prompts(suite(), tmp_path / "p.txt")


def test_settings_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.toml").write_bytes(BOM + b'corpus = "pics/"\n')
    assert read_experiment(tmp_path / "x.toml", {}).corpus == "pics"
    (tmp_path / "tuned.toml").write_bytes(BOM + b"x = 1\n")
    with pytest.raises(BenchError, match="Field required"):  # it is read, and lacks its keys
        read_tuned(tmp_path / "tuned.toml")


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("world", "world"), ("world/", "./world"), ("./world", "./world"), (".", "."), ("pics", "pics"),
        ("pics/", "pics"), ("./pics//", "pics"), ("a//b/./c/", "a/b/c"), ("/a/b/", "/a/b"), ("../pics", "../pics"),
        ("link/../pics", "link/../pics"), ("a/x.jsonl?images=b/", "a/x.jsonl?images=b/"), ("pics/?a=b", "pics?a=b"),
    ],
)  # fmt: skip
def test_a_corpus_has_one_spelling(given, plain):
    assert plain_corpus(given) == plain == plain_corpus(plain)
    assert read_experiment(None, {"corpus": given, "preferences": given}).corpus == plain


def test_two_spellings_of_a_place_are_one_corpus(tmp_path, monkeypatch):
    (tmp_path / "pics").mkdir()
    (tmp_path / "link").symlink_to("pics")
    monkeypatch.chdir(tmp_path)
    for other in ("pics/", "./pics", str(tmp_path / "pics"), "link", "../" + tmp_path.name + "/pics"):
        assert same_corpus("pics", other) and same_corpus(other, "pics")
    for other in ("pics?caption=a", "pic", "world", str(Path("pics/pics"))):
        assert not same_corpus("pics", other)
    assert same_corpus("pics?caption=a", "pics/?caption=a") and not same_corpus("world", "./world")


def test_many_names_are_named_in_part():
    assert some([]) == "" and some(["a"]) == "a"
    assert some("abcdefghi") == "a, b, c, d, e, f, g, h, i"  # one more is no longer than saying so
    assert some(range(300)) == "0, 1, 2, 3, 4, 5, 6, 7, and 292 more"
    assert len(str(unknown("column", "x", map(str, range(5000))))) < 300


def test_a_module_that_begins_with_a_byte_order_mark_is_read(tmp_path, monkeypatch):
    (tmp_path / "marked_module.py").write_bytes(BOM + b'class Thing:\n    """A thing."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.table("methods"), "marked", "marked_module:Thing")
    assert registry.summary("methods", "marked") == "A thing."
