"""Settings: from the environment, by ``tn.config``, and what is said of those that do not exist."""

from __future__ import annotations

import threading

import pytest

import tenon as tn
from engine import settings


def test_the_innermost_config_counts(monkeypatch, tmp_path):
    monkeypatch.setenv("TENON_OPT", "1")
    assert settings.get("opt") == 1
    with tn.config(opt=0, dump=tmp_path):
        assert settings.get("opt") == 0 and settings.get("dump") == str(tmp_path)
        with tn.config(opt=None):
            assert settings.get("opt") == 2 and settings.get("dump") == str(tmp_path)
        assert settings.get("opt") == 0
    assert settings.get("opt") == 1 and settings.get("dump") is None


def test_config_holds_in_its_own_thread_and_may_be_entered_again():
    seen = []
    again = tn.config(threads=3)
    with again, again:
        other = threading.Thread(target=lambda: seen.append(settings.get("threads")))
        other.start()
        other.join()
        assert settings.get("threads") == 3
    assert seen == [settings.get("threads")]


def test_config_decorates():
    @tn.config(verify=False, cache=False)
    def look():
        return settings.get("verify"), settings.get("cache")

    assert look() == (False, False)
    assert settings.get("verify") is True  # as the tests set it


def test_the_level_of_what_is_compiled_without_one(tmp_path):
    with tn.config(opt=1, cache=tmp_path / "cache"):
        exe = tn.compile(lambda x: x + 1, tn.spec("B"), target="reference")
        assert exe.level == 1
        assert tn.compile(lambda x: x + 1, tn.spec("B"), target="reference", level=3).level == 3
    with pytest.raises(tn.TenonError, match="level is 7; expected one of 0, 1, 2, 3"):
        tn.compile(lambda x: x + 1, tn.spec("B"), level=7)


def test_each_folder_of_the_cache_is_opened_once(tmp_path):
    from runtime import cache

    with tn.config(cache=tmp_path / "cache"):
        assert cache.default() is cache.default()
        assert cache.default().folder == tmp_path / "cache"
    with tn.config(cache=False):
        assert cache.default().folder is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    (
        ("threads", 0, "a whole number of at least 1"),
        ("threads", "many", "a whole number of at least 1"),
        ("opt", 4, "0, 1, 2 or 3"),
        ("verify", "yes", "0 or 1"),
        ("threading", "tbb", "'openmp' or 'python'"),
    ),
)
def test_a_value_that_makes_no_sense(name, value, expected, monkeypatch):
    with pytest.raises(tn.TenonError, match=f"the setting {name} is '{value}'; expected {expected}"):
        tn.config(**{name: value})
    monkeypatch.setenv(f"TENON_{name.upper()}", str(value))
    with pytest.raises(tn.TenonError, match=f"TENON_{name.upper()} is '{value}'; expected {expected}"):
        settings.get(name)


def test_an_unknown_name_lists_the_known_ones(monkeypatch, python):
    with pytest.raises(
        tn.TenonError, match=r"no setting verfy; did you mean verify\? The known ones: autotune, cache, dump"
    ):
        tn.config(verfy=True)
    failed = python("-c", "import tenon", status=1, TENON_THREAD="2").stderr
    assert "no environment variable TENON_THREAD; did you mean TENON_THREADS? The known ones: TENON_AUTOTUNE," in failed
