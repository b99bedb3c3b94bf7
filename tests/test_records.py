"""``engine.records``: what the standard library's frozen dataclasses do, ours do too."""

import dataclasses
import inspect

import pytest

from engine.records import dataclass

KINDS = [dataclasses.dataclass(frozen=True), dataclass(frozen=True)]


@pytest.fixture(params=KINDS, ids=["the standard library's", "ours"])
def frozen(request):
    return request.param


def _point(frozen):
    @frozen
    class Point:
        """A place."""

        x: int
        y: int = 2
        tags: list = dataclasses.field(default_factory=list)
        note: str = dataclasses.field(default="", compare=False, repr=False)

    return Point


def test_fields_defaults_and_text(frozen):
    Point = _point(frozen)
    one = Point(1, note="first")
    assert repr(one) == "_point.<locals>.Point(x=1, y=2, tags=[])" and one.note == "first"
    assert one.tags is not Point(1).tags
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "tags": [], "note": "first"}
    assert dataclasses.replace(one, y=5) == Point(1, 5) and Point.__match_args__ == ("x", "y", "tags", "note")
    assert list(inspect.signature(Point).parameters) == ["x", "y", "tags", "note"]
    with pytest.raises(TypeError, match=r"Point.__init__\(\) missing 1 required positional argument: 'x'"):
        Point()


def test_equality_and_hash_go_by_the_fields_that_are_compared(frozen):
    @frozen
    class Pair:
        a: int
        b: str
        c: float = dataclasses.field(default=0.0, hash=False)

    @frozen
    class Alone:
        put: int

    @frozen
    class Empty:
        pass

    assert _point(frozen)(1) != _point(frozen)(1)  # of another class
    Point = _point(frozen)
    assert Point(1, note="a") == Point(1, note="b") and Point(1) != Point(2) and Point(1) != (1, 2, [])
    assert hash(Pair(1, "b", 1.0)) == hash(Pair(1, "b", 2.0)) == hash((1, "b")) and Pair(1, "b", 1.0) != Pair(1, "b")
    assert hash(Alone(3)) == hash((3,)) and Alone(3) == Alone(3) and Empty() == Empty() and hash(Empty()) == hash(())
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(Point(1))


def test_nothing_can_be_assigned(frozen):
    one = _point(frozen)(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 3
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del one.x
    assert one.x == 1


def test_methods_of_the_class_stay_and_bases_count(frozen):
    @frozen
    class Base:
        x: int

        def __post_init__(self):
            assert self.x > 0

        def __repr__(self):
            return f"<{self.x}>"

    @frozen
    class Derived(Base):
        y: int = 0

    @dataclasses.dataclass(frozen=True)
    class Users(Base):
        z: int = 1

    assert repr(Base(2)) == "<2>" and Derived(2) == Derived(2, 0) and Users(2, 3).z == 3
    assert [f.name for f in dataclasses.fields(Derived)] == ["x", "y"]
    for cls in (Base, Derived, Users):
        with pytest.raises(AssertionError):
            cls(0)


@pytest.mark.parametrize("made", KINDS, ids=["the standard library's", "ours"])
def test_options(made):
    options = {"eq": False, "repr": False}
    decorate = dataclass if made is KINDS[1] else dataclasses.dataclass

    @decorate(frozen=True, **options)
    class Node:
        x: int

    one = Node(1)
    assert one != Node(1) and hash(one) == object.__hash__(one) and repr(one).startswith("<")
