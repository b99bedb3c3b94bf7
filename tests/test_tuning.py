"""Autotuning: the search on a clock of the tests' own, the cache, the options, and what every candidate computes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conv_cases import CASES, F32, B, convolution
from kernel_harness import finish
from kernel_harness import run as run_kernel

import tenon as tn
from engine import dims, dtypes
from engine import tuning as records
from engine.buffers import Buffer
from engine.errors import TextError
from engine.memory import Sizes
from engine.schedule import Access, Contraction, KernelSpec
from engine.scheduled import Memory, execute
from engine.tuning import Finding, Tuned, Tuning
from runtime import cache
from runtime.choices import answered, pick
from runtime.cpu.lower import lower
from tenon import backends, nn, tuning
from tenon.inspection.profiling import Recording
from tenon.trials import Ground
from tenon.tuning import Search, fastest

M, N = dims.dim("M"), dims.dim("N")


# --- the search --------------------------------------------------------------------------------------------


def planted(seconds, noise=(0.0,)):
    """Candidates that take so long, and a little more by turns."""
    more = itertools.cycle(noise)
    return [lambda s=s: s + next(more) for s in seconds]


def test_the_fastest_is_taken_where_it_wins_by_more_than_chance():
    assert fastest(planted([4.0, 3.0, 2.0, 5.0])) == ((4.0, 3.0, 2.0, 5.0), 2)
    assert fastest(planted([2.0, 3.0]))[1] == 0
    assert fastest(planted([2.0, 1.99]))[1] == 0
    noise = [0.0, 0.4, 0.1, 0.6, 0.2, 0.8, 0.3]
    assert fastest(planted([1.0, 0.98, 1.02], noise))[1] == 0


def test_a_machine_that_is_busy_decides_nothing():
    """Both candidates take what others leave them; the second was lucky when it was chosen."""
    rng = np.random.default_rng(0)
    chosen = [fastest([lambda: 1.0 + 20 * rng.random(), lambda: 1.0 + 20 * rng.random()])[1] for _ in range(100)]
    assert sum(chosen) <= 3


def test_a_candidate_that_is_far_slower_is_given_up_after_one_run():
    calls = [0, 0]

    def slow():
        calls[1] += 1
        return 10.0

    def quick():
        calls[0] += 1
        return 1.0

    assert fastest([quick, slow]) == ((1.0, 10.0), 0)
    assert calls == [tuning.ROUNDS, 1]


def test_a_default_that_is_far_slower_is_still_measured():
    assert fastest(planted([10.0, 1.0, 1.2])) == ((10.0, 1.0, 1.2), 1)


class PlantedBench:
    """Takes as many seconds a turn as ``seconds`` says of a program."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.loaded = []

    def load(self, kernels):
        self.loaded.append(len(kernels))

    def ready(self, program, ground):
        return lambda turns: turns * self.seconds(program)


def matmul(m=64, n=96, k=40):
    core = Contraction(Access("a", dtypes.f32, (k, 1)), Access("b", dtypes.f32, (n, 1)), k)
    return KernelSpec("product", (m, n), (), (Access("y", dtypes.f32, (n, 1)),), finish(dtypes.f32), core)


def ground_of(m=64, n=96, k=40, lasting=()):
    sizes = {"a": m * k, "b": k * n, "y": m * n}
    return Ground({name: Buffer(name, "temp", dtypes.f32, size) for name, size in sizes.items()}, Sizes({}), lasting)


def test_questions_are_asked_one_after_the_other_under_the_answers_found():
    """The block of the clock's liking is found in the program that is made of it."""
    asked = answered({}, partial(lower, matmul(), ()))[1]
    assert list(asked) == ["rows from", "block"]
    wanted = asked["block"][-1]
    found, _ = answered({"block": len(asked["block"]) - 1}, partial(lower, matmul(), ()))

    def seconds(program):
        return 1.0 if program.main[-1].args == found.calls[-1].args else 2.0

    bench = PlantedBench(seconds)
    findings = Search(lower, ground_of(), bench).findings(matmul())
    assert [f.question for f in findings] == ["rows from", "block"]
    assert findings[0].chosen == 0 and findings[1].candidates[findings[1].chosen] == wanted
    assert len(bench.loaded) == 2


def test_a_candidate_that_cannot_run_is_not_taken():
    class Small(PlantedBench):
        def ready(self, program, ground):
            if program.main[-1].args != self.default:
                raise tn.UnsupportedError("it takes more than there is")
            return super().ready(program, ground)

    bench = Small(lambda program: 1.0)
    bench.default = lower(matmul()).calls[-1].args
    (rows, block) = Search(lower, ground_of(), bench).findings(matmul())
    assert rows.chosen == block.chosen == 0 and block.seconds[0] == 1.0 and math.inf in block.seconds
    assert records.from_json(records.to_json((Tuned("k", ("n",), (block,)),)))[0].findings == (block,)
    bench.default = ()
    assert Search(lower, ground_of(), bench).findings(matmul()) == ()


def test_a_kernel_that_does_nothing_in_a_call_is_not_measured():
    bench = PlantedBench(lambda program: 1.0)
    before = lower(matmul(n=70), {"b"})
    packing = replace(before, calls=before.calls[:-1])
    assert len(packing.calls) == 1

    def only_packs(item, lasting):
        pick("way", {"a": 0, "b": 1})
        return packing

    ground = ground_of(n=70, lasting={"b"})
    assert ground.program(packing) is None and ground.program(before) is not None
    assert Search(only_packs, ground, bench).findings(matmul(n=70)) == ()


# --- choices -----------------------------------------------------------------------------------------------


def test_left_alone_the_first_candidate_is_taken():
    assert pick("tile", {"large": 2, "small": 1}) == 2


def test_a_question_that_is_asked_again_is_another_one():
    def lowering():
        return [pick("tile", {"large": 2, "small": 1}) for _ in range(2)] + [pick("only", {"one": 0})]

    assert answered({}, lowering) == ([2, 2, 0], {"tile": ("large", "small"), "tile 2": ("large", "small")})
    assert answered({"tile 2": 1}, lowering)[0] == [2, 1, 0]


def test_alike_kernels_have_one_key_whatever_their_names():
    def key(spec, lasting=()):
        lowered, asked = answered({}, partial(lower, spec, lasting))
        return tuning.kernel_key(lowered, asked, lasting, Sizes({}))

    spec = matmul()
    core = replace(spec.core, a=replace(spec.core.a, buffer="other"))
    assert key(spec) == key(replace(spec, name="again", core=core))
    assert len({key(spec), key(matmul(m=65)), key(matmul(k=41)), key(spec, {"b"})}) == 4


# --- every candidate computes the same ---------------------------------------------------------------------


def all_ways(spec, lasting=()):
    """Each question's candidates, the others' answers being the default, as lowered kernels."""
    asked = answered({}, partial(lower, spec, lasting))[1]
    for question, candidates in asked.items():
        for i in range(len(candidates)):
            yield f"{question}: {candidates[i]}", answered({question: i}, partial(lower, spec, lasting))[0]


@pytest.mark.parametrize("lasting", [(), ("b",)])
@pytest.mark.parametrize("m, n, k", [(64, 96, 40), (5, 70, 300), (130, 17, 33)])
def test_every_way_of_a_product_gives_the_same_bits(m, n, k, lasting):
    spec = matmul(m, n, k)
    rng = np.random.default_rng(0)
    arrays = {"a": rng.standard_normal(m * k).astype("f4"), "b": rng.standard_normal(k * n).astype("f4")}
    buffers = [Buffer(name, "temp", dtypes.f32, size) for name, size in (("a", m * k), ("b", k * n), ("y", m * n))]
    memory = Memory(buffers, {}, arrays)
    execute(spec, memory)
    expected = memory.arrays["y"]
    results = []
    for way, lowered in all_ways(spec, lasting):
        y = np.full(m * n, np.nan, "f4")
        run_kernel(lowered, {**arrays, "y": y}, {}, splits=2)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4, err_msg=way)
        results.append(y)
    assert len(results) >= 4
    assert all((y == results[0]).all() for y in results)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("strides")])
def test_every_way_of_a_convolution_gives_the_same_bits(name):
    case = CASES[name]
    y = Access("y", F32, case.strides(case.out_size, case.channels[1]))
    spec = KernelSpec("conv", (B, *case.out_size, case.channels[1]), (), (y,), finish(F32), convolution(case))
    rng = np.random.default_rng(0)
    w = rng.standard_normal(case.weight_shape).astype(np.float32)
    stored, _ = case.image(rng, 9, case.size, case.channels[0])
    results = []
    for _way, lowered in all_ways(spec):
        written, found = case.empty(9, case.out_size, case.channels[1])
        run_kernel(lowered, {"x": stored, "w": w, "y": written}, {"B": 9}, splits=3)
        results.append(found.copy())
    assert all((found == results[0]).all() for found in results)


def test_every_way_of_an_attention_gives_the_same_bits(monkeypatch):
    spec = tn.spec(2, 2, 150, 16)
    given = [np.random.default_rng(i).standard_normal((2, 2, 150, 16)).astype("f4") for i in range(3)]

    def attend(q, k, v):
        return tn.F.scaled_dot_product_attention(q, k, v, is_causal=True)

    plain = tn.compile(attend, spec, spec, spec)(*given)
    ways = []
    for i in range(3):
        monkeypatch.setattr(tuning, "fastest", lambda runs, i=i: ways.append(i) or ((1.0,) * len(runs), i))
        with tn.config(cache=False, threads=1):
            tuned = tn.compile(attend, spec, spec, spec, autotune=True)
        assert tuned.tuning.tuned[0].findings[0].question == "queries"
        assert (tuned(*given) == plain).all()
    assert ways == [0, 1, 2]


@pytest.mark.slow
def test_what_may_round_more_is_weighed_against_the_plain_sums(monkeypatch, tmp_path):
    """At level 3 Winograd's algorithm is the default; where the sums are faster they are taken, as at level 2."""
    model = nn.Conv2d(32, 64, 3, padding=1).eval()
    x = np.random.default_rng(0).standard_normal((2, 32, 16, 16)).astype("f4")
    specs = tn.spec("B", 32, 16, 16)
    exact, short = (tn.compile(model, specs, level=level)(x) for level in (2, 3))
    assert (exact != short).any()
    monkeypatch.setattr(tuning, "fastest", lambda runs: ((1.0,) * len(runs), 1 if len(runs) == 2 else 0))
    with tn.config(cache=tmp_path / "cache", threads=1):
        exe = tn.compile(model, specs, level=3, autotune=True)
        got = exe(x)
    first = exe.tuning.tuned[0].findings[0]
    assert first.question == "algorithm" and first.candidates == ("winograd", "sums")
    assert (got == exact).all()


# --- programs ----------------------------------------------------------------------------------------------


def net():
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 24, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 36, 10),
    ).eval()  # fmt: skip


IMAGES = np.random.default_rng(0).standard_normal((5, 3, 12, 12)).astype("f4")


@pytest.fixture
def last_is_fastest(monkeypatch):
    """Every question is answered with its last candidate, and nothing is timed."""
    asked = []

    def choose(runs):
        asked.append(len(runs))
        for run in runs:
            run()
        return tuple(float(len(runs) - i) for i in range(len(runs))), len(runs) - 1

    monkeypatch.setattr(tuning, "fastest", choose)
    monkeypatch.setattr(backends.CPU, "_seconds", lambda self, executor, inputs: executor.run(inputs) == () or 1.0)
    with tn.config(threads=1):  # measurements that nobody reads are no reason to wait for other threads
        yield asked


def test_a_program_is_tuned_at_its_first_call_and_gives_the_same_bits(tmp_path, last_is_fastest):
    model = net()
    plain = tn.compile(model, tn.spec("B", 3, 12, 12))
    expected = plain(IMAGES), plain(IMAGES[:2])
    with tn.config(cache=tmp_path / "cache"):
        exe = tn.compile(model, tn.spec("B", 3, 12, 12), autotune=True)
        assert exe.tuning is None and not last_is_fastest
        assert (exe(IMAGES) == expected[0]).all()
        assert len(last_is_fastest) >= 4
        found = exe.tuning
        assert dict(found.sizes) == {"B": 5} and found.measured == len(found.tuned) == len(found.answers)
        tried = len(last_is_fastest)
        assert (exe(IMAGES[:2]) == expected[1]).all() and len(last_is_fastest) == tried
        assert exe.compile_count == 2
        assert [k.key for k in exe.program.kernels] and exe.program.main != plain.program.main
        for threads in (1, 2, 3):
            with tn.config(threads=threads):
                exe.reload()
            assert (exe(IMAGES) == expected[0]).all()
        again = tn.compile(model, tn.spec("B", 3, 12, 12), autotune=True)
        assert (again(IMAGES) == expected[0]).all()
        assert again.tuning.measured == 0 and again.tuning.tuned == found.tuned and len(last_is_fastest) == tried
        assert again.program.main == exe.program.main and again.report.from_cache


def test_fixed_sizes_are_tuned_at_once(tmp_path, last_is_fastest):
    with tn.config(cache=tmp_path / "cache"):
        exe = tn.compile(net(), tn.spec(5, 3, 12, 12), autotune=True)
        assert exe.tuning.sizes == () and exe.compile_count == 1
        assert exe.tuning.answers
        assert exe(IMAGES).shape == (5, 10)


def test_a_program_stays_where_the_estimates_were_right(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "fastest", lambda runs: ((1.0,) * len(runs), 0))
    with tn.config(cache=tmp_path / "cache", threads=1):
        exe = tn.compile(nn.Linear(40, 70).eval(), tn.spec("B", 40), autotune=True)
        before = exe.executor
        exe(np.ones((9, 40), "f4"))
    assert exe.tuning.tuned and not exe.tuning.answers
    assert exe.executor is before and exe.compile_count == 1


def test_a_wrong_input_is_refused_before_anything_is_measured(tmp_path, last_is_fastest):
    with tn.config(cache=tmp_path / "cache"):
        exe = tn.compile(net(), tn.spec("B", 3, 12, 12), autotune=True)
        with pytest.raises(tn.ShapeError, match="12"):
            exe(np.zeros((5, 3, 12, 11), "f4"))
        assert exe.tuning is None and not last_is_fastest


def test_other_programs_know_what_was_measured(tmp_path, last_is_fastest):
    with tn.config(cache=tmp_path / "cache"):
        model = net()
        tn.compile(model, tn.spec("B", 3, 12, 12), autotune=True)(IMAGES)
        tried = len(last_is_fastest)
        more = tn.compile(lambda x: model(x) * 2, tn.spec("B", 3, 12, 12), autotune=True)
        more(IMAGES)
        assert more.tuning.measured < len(more.tuning.tuned)
        assert len(last_is_fastest) - tried < tried


SCRIPT = """
import numpy as np, tenon as tn
from tenon import nn, tuning
net = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 7)).eval()
{patch}
exe = tn.compile(net, tn.spec("B", 40), autotune=True)
exe(np.ones((9, 40), "f4"))
print(exe.tuning.measured, len(exe.tuning.tuned), exe.tuning.key)
"""


@pytest.mark.slow
def test_a_second_process_measures_nothing(python, tmp_path):
    """The first takes the last candidate of each question; the second would fail if it measured."""
    last = "tuning.fastest = lambda runs: (tuple(1.0 for _ in runs), len(runs) - 1)"
    never = "tuning.fastest = None"
    first = python("-c", SCRIPT.format(patch=last), TENON_CACHE=str(tmp_path / "cache")).stdout
    second = python("-c", SCRIPT.format(patch=never), TENON_CACHE=str(tmp_path / "cache")).stdout
    assert first.split()[0] == first.split()[1] == "2"
    assert second.split()[0] == "0" and second.split()[1:] == first.split()[1:]
    assert "block" in first


def test_damaged_findings_are_measured_again(tmp_path, last_is_fastest):
    with tn.config(cache=tmp_path / "cache"):
        model, x = nn.Linear(40, 70).eval(), np.ones((9, 40), "f4")
        tn.compile(model, tn.spec("B", 40), autotune=True)(x)
        for file in (tmp_path / "cache" / "tuning").iterdir():
            data = bytearray(file.read_bytes())
            data[-3] ^= 1
            file.write_bytes(data)
        tried = len(last_is_fastest)
        exe = tn.compile(model, tn.spec("B", 40), autotune=True)
        exe(x)
        assert exe.tuning.measured == len(exe.tuning.tuned) and len(last_is_fastest) == 2 * tried


SHORT = '[["key", ["name"], [["tile", ["a", "b"], [1.0], 0]]]]'
BEYOND = '[["key", [], [["tile", ["a"], [1], 4]]]]'


@pytest.mark.parametrize("text", ["", "[[1]]", SHORT, BEYOND])
def test_what_is_no_finding_is_refused(text):
    with pytest.raises(TextError, match="no findings"):
        records.from_json(text)


def test_findings_come_back_from_text():
    found = (
        Tuned("key", ("one", "two"), (Finding("tile", ("a", "b"), (2.0, 1.0), 1), Finding("by", ("c",), (1.0,), 0))),
    )
    assert records.from_json(records.to_json(found)) == found
    assert Tuning((), "here", found).answers == {"key": {"tile": 1}}


def test_nothing_is_kept_without_a_cache(last_is_fastest):
    with tn.config(cache=False):
        assert cache.default().load_tuned("key", "label") is None
        exe = tn.compile(nn.Linear(8, 3).eval(), tn.spec("B", 8), autotune=True)
        exe(np.ones((4, 8), "f4"))
        assert exe.tuning.measured == 1


def test_a_training_step_is_tuned_without_being_run(tmp_path, last_is_fastest):
    """Measurements use memory of their own: the first step starts from the initial weights."""
    x, y = np.random.default_rng(0).standard_normal((16, 12)).astype("f4"), np.arange(16) % 3

    def losses(**options):
        tn.seed(0)
        model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3))
        step = tn.train_step(model, nn.CrossEntropyLoss(), tn.optim.Adam(model.parameters()),
                             [tn.spec("B", 12), tn.spec("B", dtype="i64")], **options)  # fmt: skip
        return [float(step(x, y)) for _ in range(3)]

    plain = losses()
    with tn.config(cache=tmp_path / "cache"):
        assert losses(autotune=True) == plain
    assert last_is_fastest


def test_the_trainer_tunes_at_the_first_batch(tmp_path, last_is_fastest):
    x, y = np.random.default_rng(0).standard_normal((20, 12)).astype("f4"), np.arange(20) % 3
    with tn.config(cache=tmp_path / "cache"):
        model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
        optimizer = tn.optim.SGD(model.parameters(), lr=0.1)
        trainer = tn.Trainer(model, optimizer, nn.CrossEntropyLoss(), autotune=True)
        trainer.fit(x, y, batch_size=8, verbose=0)
        assert {dict(e.tuning.sizes)["B"] for e in trainer._programs.values()} == {8}


def test_a_profile_is_of_the_tuned_program(tmp_path, last_is_fastest):
    x = np.ones((9, 40), "f4")
    with tn.config(cache=tmp_path / "cache"):
        exe = tn.compile(nn.Linear(40, 70).eval(), tn.spec("B", 40), autotune=True)
        exe.profile(x, repeats=5)
        assert dict(exe.tuning.sizes) == {"B": 9}
        recorded = tn.compile(nn.Linear(40, 70).eval(), tn.spec("B", 40), autotune=True)
        recording = Recording(recorded)
        for _ in range(3):
            recorded(x)
        assert recorded.tuning is not None and recording.profile().calls == 2


# --- options -----------------------------------------------------------------------------------------------


def test_the_option_is_checked():
    with pytest.raises(tn.TenonError, match="autotune is 'yes'; expected True or False"):
        tn.compile(nn.Linear(3, 2), tn.spec("B", 3), autotune="yes")
    with pytest.raises(
        tn.UnsupportedError, match="target='reference' has nothing to measure: the reference interprets"
    ):
        tn.compile(nn.Linear(3, 2), tn.spec("B", 3), autotune=True, target="reference")
    with tn.config(jit=False), pytest.raises(tn.UnsupportedError, match=r"kernels run in Python \(TENON_JIT=0\)"):
        tn.compile(nn.Linear(3, 2), tn.spec("B", 3), autotune=True)


def test_the_setting_holds_where_the_option_is_left_out(tmp_path, last_is_fastest):
    with tn.config(autotune=True, cache=tmp_path / "cache"):
        x = np.ones((2, 3), "f4")
        reference = tn.compile(nn.Linear(3, 2), tn.spec("B", 3), target="reference")
        assert reference(x).shape == (2, 2) and reference.tuning is None
        off = tn.compile(nn.Linear(3, 2), tn.spec("B", 3), autotune=False)
        off(x)
        on = tn.compile(nn.Linear(3, 2), tn.spec("B", 3))
        on(x)
        assert off.tuning is None and on.tuning is not None


# --- what people see ---------------------------------------------------------------------------------------


def test_the_dump_and_the_explanation_say_what_was_tried(tmp_path, last_is_fastest):
    with tn.config(cache=tmp_path / "cache"):
        exe = tn.compile(nn.Linear(40, 70).eval(), tn.spec("B", 40), autotune=True)
        assert "a first call" in str(tn.explain(exe))
        exe(np.ones((9, 40), "f4"))
        told = (exe.dump(tmp_path / "dump") / "tuning.txt").read_text()
        explained = str(tn.explain(exe))
    assert told.startswith("at B=9, on ") and "1 kernel measured, 0 from the cache" in told
    finding = exe.tuning.tuned[0].findings[-1]
    assert all(candidate in told for candidate in finding.candidates)
    assert "default" in told and "chosen" in told
    assert "Tuned:" in explained and finding.candidates[-1] in explained


def test_bisecting_a_tuned_program_looks_at_its_own_kernels(tmp_path, last_is_fastest):
    with tn.config(cache=tmp_path / "cache"):
        exe = tn.compile(net(), tn.spec("B", 3, 12, 12), autotune=True)
        exe(IMAGES)
        assert tn.bisect(exe, IMAGES) is None or "no difference" in str(tn.bisect(exe, IMAGES)).lower()
        assert exe.stages["program"].main == exe.program.main
