"""Slices of profiles: what a process counts is what anybody reads, whatever happens to files."""

import json

import numpy as np
import pytest

from mlguard.data.joint import ANSWER
from mlguard.data.log_columns import NamedColumn
from mlguard.data.prediction_log import PredictionLog
from mlguard.data.profile import SCORE, Profile
from mlguard.data.profile_log import FILE_BYTES, ProfileWriter, grid_name, read_slices
from mlguard.models.schema import Feature

FEATURES = (Feature("age", "number"), Feature("job", "category"), Feature("when", "time"))
KINDS = {"age": "number", "job": "category", "when": "time", SCORE: "number"}


def table(n, seed):
    rng = np.random.default_rng(seed)
    return {
        "age": rng.normal(40, 9, n),
        "job": rng.choice(["a", "b", "c"], n).astype(object),
        "when": np.full(n, np.datetime64("2026-01-01")),
        SCORE: rng.random(n),
    }


@pytest.fixture
def grid():
    """Profile of a reference, as it comes back from the registry."""
    document = Profile.reference(table(800, 1), KINDS).to_json()
    return Profile.from_json(json.loads(json.dumps(document)))


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def writer(folder, grid, process="p", **options):
    return ProfileWriter(folder, process, grid, FEATURES, **options)


def add(one, columns, *, generation=1, start=0.0, valid=None):
    n = len(columns["age"])
    one.add(
        generation=generation,
        times=[start + place for place in range(n)],
        rows=[
            [None if np.isnan(age) else float(age), job, "2026-01-01T00:00:00"]
            for age, job in zip(columns["age"], columns["job"], strict=True)
        ],
        scores=columns[SCORE].tolist(),
        valid=[True] * n if valid is None else valid,
    )


def same(one, other):
    """Whether two profiles hold the same counts; moments up to rounding."""
    assert one.n_rows == other.n_rows
    assert one.n_unusual == other.n_unusual
    for name, mine in one.features.items():
        theirs = other[name]
        assert mine.counts.tolist() == theirs.counts.tolist()
        assert mine.missing == theirs.missing
        assert (mine.low, mine.high) == (theirs.low, theirs.high)
        assert mine.total == pytest.approx(theirs.total)
    return True


def test_what_is_read_is_what_was_counted(tmp_path, grid):
    """Counts, missing, moments, scores, and rows that were not valid; times are left out."""
    columns = table(300, 2)
    columns["age"][:7] = np.nan
    columns["job"][:5] = "unheard of"
    one = writer(tmp_path, grid)
    add(one, columns, valid=[True] * 290 + [False] * 10)
    one.close_slice(refused=3)
    [found] = read_slices(tmp_path, grid)
    assert (found.generation, found.n_rows, found.refused) == (1, 300, 3)
    assert (found.start, found.end) == (0.0, 299.0)
    assert set(found.profile.features) == {"age", "job", SCORE}
    cut = {name: values[:290] for name, values in columns.items() if name != "when"}
    assert same(found.profile, grid.only(cut).summarise(cut))


@pytest.mark.parametrize("n_processes", [1, 16])
def test_slices_of_all_processes_merge_to_the_whole(tmp_path, grid, n_processes):
    """However rows are dealt to processes and slices, the counts are those of one table."""
    columns = table(2000, 3)
    rng = np.random.default_rng(4)
    dealt = rng.integers(0, n_processes, 2000)
    for process in range(n_processes):
        one = writer(tmp_path, grid, f"p{process}")
        mine = {name: values[dealt == process] for name, values in columns.items()}
        for cut in np.array_split(np.arange(len(mine["age"])), 5):
            add(one, {name: values[cut] for name, values in mine.items()})
            if rng.random() < 0.5:
                one.close_slice()
        one.close_slice()
    slices = read_slices(tmp_path, grid)
    assert len({one.file for one in slices}) == n_processes
    order = rng.permutation(len(slices))
    whole = slices[order[0]].profile
    for place in order[1:]:
        whole = whole.merge(slices[place].profile)
    cut = {name: values for name, values in columns.items() if name != "when"}
    assert same(whole, grid.only(cut).summarise(cut))


def test_a_slice_is_written_when_it_is_due(tmp_path, grid):
    """Five seconds after its first row; a clock that was set back does not hold it up."""
    clock = Clock()
    one = writer(tmp_path, grid, clock=clock)
    one.announce()
    assert one.flush(refused=1) == 0
    add(one, table(5, 5))
    clock.now += 4.9
    assert one.flush(refused=1) == 0
    assert read_slices(tmp_path, grid) == []
    clock.now += 0.2
    assert one.flush(refused=1) == 1
    add(one, table(5, 6))
    clock.now -= 3600
    one.flush()
    first, second = read_slices(tmp_path, grid)
    assert (first.refused, second.refused) == (1, 0)
    assert second.closed_at == first.closed_at
    assert second.stop > first.stop


def test_a_generation_has_slices_of_its_own(tmp_path, grid):
    """Rows of two generations are never counted together."""
    one = writer(tmp_path, grid)
    add(one, table(5, 7), generation=1)
    add(one, table(6, 7), generation=2)
    one.close_slice()
    assert [(s.generation, s.n_rows) for s in read_slices(tmp_path, grid)] == [(1, 5), (2, 6)]


def test_a_torn_line_is_not_read_and_a_broken_one_is_passed_over(tmp_path, grid):
    """As a kill leaves them, and as a power cut may."""
    one = writer(tmp_path, grid)
    for seed in range(3):
        add(one, table(5, seed))
        one.close_slice()
    [path] = tmp_path.glob("*.profiles")
    whole = path.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    for cut in (1, 20, len(third) - 1):
        path.write_bytes(first + second + third[:cut])
        assert len(read_slices(tmp_path, grid)) == 2
    path.write_bytes(first + b"\0" * 50 + b"\n" + third)
    assert [s.n_rows for s in read_slices(tmp_path, grid)] == [5, 5]


def test_a_reader_goes_on_where_it_was(tmp_path, grid):
    """From a byte of each file, in the order of their writing over all files."""
    clock = Clock()
    writers = [writer(tmp_path, grid, name, clock=clock) for name in ("a", "b")]
    stops, seen = {}, []
    for turn in range(6):
        clock.now += 10
        add(writers[turn % 2], table(turn + 1, turn))
        writers[turn % 2].close_slice()
        for one in read_slices(tmp_path, grid, stops):
            seen.append(one.n_rows)
            stops[one.file] = one.stop
    assert seen == [1, 2, 3, 4, 5, 6]
    assert [one.n_rows for one in read_slices(tmp_path, grid)] == seen


def test_a_slice_of_another_grid_says_nothing(tmp_path, grid):
    """Its rows are counted, its profile is none."""
    other = Profile.reference(table(500, 9), KINDS)
    assert grid_name(other) != grid_name(grid) == grid_name(Profile.from_json(grid.to_json()))
    one = writer(tmp_path, other)
    add(one, table(5, 1))
    one.close_slice()
    [found] = read_slices(tmp_path, grid)
    assert (found.n_rows, found.profile) == (5, None)


@pytest.mark.parametrize("valid", [[True] * 6, [True, False, True, True, False, True]])
@pytest.mark.parametrize("shape", [np.asarray, list, np.ndarray.tolist])
def test_rows_of_numbers_are_counted_whatever_holds_them(tmp_path, shape, valid):
    """A server hands in one array, its rows, or lists: the counts are the same."""
    features = (Feature("a", "number"), Feature("b", "number"))
    kinds = {"a": "number", "b": "number"}
    cells = np.random.default_rng(0).normal(size=(6, 2))
    grid = Profile.reference({"a": cells[:, 0], "b": cells[:, 1]}, kinds)
    one = ProfileWriter(tmp_path, "p", grid, features)
    one.add(
        generation=1,
        times=[1.0] * 6,
        rows=shape(cells),
        scores=[None] * 6,
        valid=valid,
        groups=[{"sex": "F"}] * 6,
        answers=[0.5] * 6,
    )
    one.close_slice()
    (found,) = read_slices(tmp_path, grid)
    kept = cells[valid]
    assert found.n_rows == 6
    for place, name in enumerate("ab"):
        counted = found.profile[name]
        assert int(counted.counts.sum()) == len(kept)
        assert (counted.low, counted.high) == (kept[:, place].min(), kept[:, place].max())


def test_redacted_columns_are_not_counted(tmp_path, grid):
    """Nothing of them reaches the disk, not even as numbers."""
    one = writer(tmp_path, grid, redact=("age", SCORE))
    add(one, table(5, 1))
    one.close_slice()
    [found] = read_slices(tmp_path, grid)
    assert set(found.profile.features) == {"job"}


def test_a_full_disk_loses_slices_and_disturbs_nobody(tmp_path, grid, monkeypatch):
    """Half a line that was written is written over by the next one."""
    one = writer(tmp_path, grid)
    add(one, table(5, 1))
    one.close_slice()
    with monkeypatch.context() as patch:

        def full(descriptor, data, offset):
            import os

            os.lseek(descriptor, offset, os.SEEK_SET)
            os.write(descriptor, data[:9])
            raise OSError(28, "No space left on device")

        patch.setattr("mlguard.data.profile_log.os.pwrite", full)
        add(one, table(6, 1))
        one.close_slice()
        assert "No space left" in one.last_error
    add(one, table(7, 1))
    one.close_slice()
    assert [s.n_rows for s in read_slices(tmp_path, grid)] == [5, 7]


def test_files_are_cut_and_pruned(tmp_path, grid, monkeypatch):
    """A long life makes several files, and old ones go with the rows of their time."""
    monkeypatch.setattr("mlguard.data.prediction_log.FILE_BYTES", 3000)
    assert FILE_BYTES == 8 << 20
    log = PredictionLog(tmp_path)
    one = log.profile_writer("app", 1, "a/b", grid, FEATURES)
    for seed in range(12):
        add(one, table(50, seed))
        one.close_slice()
    files = sorted((tmp_path / "app/1").glob("*.profiles"))
    assert len(files) > 2
    assert log.has_slices("app", 1)
    assert len(log.slices("app", 1, grid)) == 12
    log.prune(older_than=files[0].stat().st_mtime - 10)
    assert len(log.slices("app", 1, grid)) == 12
    log.prune(older_than=files[-1].stat().st_mtime + 10)
    assert not log.has_slices("app", 1)


def test_a_numeric_feature_takes_little_room(tmp_path, grid):
    """At most 4 kB a slice, however many rows it stands for."""
    rng = np.random.default_rng(1)
    columns = {f"x{place}": rng.lognormal(3, 2, 20_000) for place in range(20)}
    wide = Profile.reference(columns)
    features: tuple[NamedColumn, ...] = tuple(Feature(name, "number") for name in columns)
    one = ProfileWriter(tmp_path, "p", wide, features)
    rows = np.column_stack(list(columns.values())).tolist()
    n = len(rows)
    one.add(generation=1, times=[0.0] * n, rows=rows, scores=[None] * n, valid=[True] * n)
    one.close_slice()
    [path] = tmp_path.glob("*.profiles")
    assert path.stat().st_size < 20 * 4096
    for name in columns:
        assert len(json.dumps(wide[name].to_json())) < 4096


@pytest.mark.parametrize("redact", [(), ("sex",), ("groups",), ("output",)])
def test_groups_and_answers_are_counted_together(tmp_path, redact):
    """What callers say of a row, else its own cell; nothing of what is redacted."""
    columns = table(400, 5)
    named = {"sex": ["F", "M"] * 200, "job": columns["job"].tolist()}
    grid = Profile.reference(
        columns, KINDS, groups=named, answers=["0", "1"] * 200, classes=["0", "1"]
    )
    one = writer(tmp_path, grid, redact=redact)
    n = 60
    rows = [[40.0, "a", "2026-01-01T00:00:00"]] * n
    said = [{"sex": "F"} if place % 3 else None for place in range(n)]
    one.add(
        generation=1,
        times=[1.0] * n,
        rows=rows,
        scores=[0.5] * n,
        valid=[place < 50 for place in range(n)],
        groups=said,
        answers=[1.0 if place % 2 else None for place in range(n)],
    )
    one.close_slice()
    [found] = read_slices(tmp_path, grid)
    joint = found.profile.joint
    assert set(joint) == {"sex", "job"} - set(redact) - (
        {"sex", "job"} if "groups" in redact else set()
    )
    for attribute, by_column in joint.items():
        assert (ANSWER in by_column) == ("output" not in redact)
        for counts in by_column.values():
            assert counts.counts.sum() == 50
            # Nobody's sex is known in every third row; everybody's job is a cell of the row.
            assert counts.n_unknown == (17 if attribute == "sex" else 0)
    if "sex" in joint and "output" not in redact:
        by_answer = joint["sex"][ANSWER].of_groups()["F"]
        assert by_answer.tolist() == [0, sum(p % 2 and p % 3 != 0 for p in range(50)), 0]
