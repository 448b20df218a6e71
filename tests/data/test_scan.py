import datetime as dt
import functools
import itertools
import math
import os
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.data.column_scan import MOST_COUNTED
from mlguard.data.frames import read_frame
from mlguard.data.row_hashes import known_rows, n_repeats, repeats, row_hashes
from mlguard.data.sampling import iterate_frames, sample_rows
from mlguard.data.scan import TableScan, scan_batch, scan_table
from mlguard.data.schema import infer_schema
from mlguard.errors import DataError


def agrees(url, **options):
    """Scan a file and hold every column against pandas and the schema of the whole frame."""
    scan, frame = scan_table(str(url), **options), read_frame(str(url), **options)
    assert scan.names == tuple(frame.columns)
    assert scan.n_rows == len(frame)
    for found, expected in zip(scan.schema.columns, infer_schema(frame).columns, strict=True):
        assert same_column(found, expected), (found, expected)
    for name in scan.names:
        one, values = scan[name], frame[name].dropna()
        assert one.n_missing == frame[name].isna().sum()
        if one.column.kind in ("number", "integer") and one.n:
            assert one.numbers.mean == pytest.approx(values.mean())
            assert one.numbers.deviation == pytest.approx(values.std(ddof=0), abs=1e-9)
    return scan, frame


def same_column(one, other):
    """Whether two columns are described alike, bounds up to rounding."""
    plain = [
        (each.name, each.kind, each.categories, each.low is None, each.high is None)
        for each in (one, other)
    ]
    figures = [(each.missing_share, each.low or 0.0, each.high or 0.0) for each in (one, other)]
    return plain[0] == plain[1] and figures[0] == pytest.approx(figures[1])


def mixed(n=5000, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "number": rng.normal(size=n),
            "gappy": np.where(rng.random(n) < 0.2, np.nan, rng.normal(5, 2, n)),
            "whole": rng.integers(-5, 50, n),
            "flag": rng.random(n) < 0.3,
            "city": rng.choice(["Ulm", "Bonn", "Kiel, Nord", 'the "port"', "Köln"], n),
            "text": [f"word {one}" for one in rng.integers(0, 3000, n)],
            "at": pd.date_range("2024-01-01", periods=n, freq="h").astype(str),
            "same": "x",
        }
    )
    frame["named"] = pd.Series(rng.choice(["1", "2.5", "NA"], n), dtype="str")
    frame["odd"] = pd.Series(rng.choice(["1", "two", "NA"], n), dtype="str")
    return frame


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_a_csv_file_means_what_it_means_whole(tmp_path, suffix):
    """Kinds, ranges, categories and missing shares are those of the frame that pandas reads."""
    mixed().to_csv(tmp_path / f"t.{suffix}", index=False)
    scan, _ = agrees(tmp_path / f"t.{suffix}", missing_values=["word 7"])
    assert scan["named"].column.kind == "number"
    assert scan["odd"].column.kind == "category"
    assert scan["flag"].column.kind == "boolean"


def test_parquet_means_the_same_and_threads_change_nothing(tmp_path):
    """Row groups in several threads give what one pass gives, in whatever order they end."""
    frame = mixed(40_000).drop(columns=["named", "odd"])
    frame["when"] = pd.date_range("2024-01-01", periods=len(frame), freq="s")
    frame["coded"] = frame["city"].astype("category")
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "t.parquet", row_group_size=3000)
    scan, _ = agrees(tmp_path / "t.parquet")
    for threads in (1, 3, 4):
        again = scan_table(str(tmp_path / "t.parquet"), threads=threads)
        assert all(map(same_column, again.schema.columns, scan.schema.columns))
        assert [one.counts for one in again.columns.values()] == [
            one.counts for one in scan.columns.values()
        ]


@pytest.mark.parametrize(
    ("file", "missing"),
    [
        ("quality/titanic/titanic.csv.gz", []),
        ("quality/hospital/dirty.csv", ["empty"]),
        ("quality/nyc_taxi_2019/yellow_tripdata_sample_2019-02.csv.gz", []),
        ("fairness/compas/compas-scores-two-years.csv.gz", []),
    ],
)
def test_real_files_mean_what_they_mean_whole(shared_data, file, missing):
    """Four real files: every column's kind, range, categories and gaps agree with pandas."""
    scan, _ = agrees(shared_data / file, missing_values=missing)
    if "titanic" in file:
        gaps = {name: scan[name].n_missing for name in scan.names if scan[name].n_missing}
        assert gaps == {"Age": 177, "Cabin": 687, "Embarked": 2}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, 1.0])),
            st.one_of(st.none(), st.sampled_from(["", "?", "NA", "1", "-2.5", "x", "2024-01-01"])),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_parts_merge_to_the_whole_in_any_order(rows, n_parts, order):
    """However rows are split and merged, counts, ranges and kinds are those of all of them."""
    batch = pa.record_batch(
        {"a": pa.array([one[0] for one in rows], pa.float64()), "b": [one[1] for one in rows]},
        schema=pa.schema([("a", pa.float64()), ("b", pa.string())]),
    )
    options = {"missing": frozenset("?"), "pairs": [("b", "b")]}
    whole = scan_batch(batch, **options)
    cuts = sorted(order.sample(range(len(rows) + 1), min(n_parts, len(rows))))
    edges = [0, *cuts, len(rows)]
    parts = [
        scan_batch(batch.slice(low, high - low), **options)
        for low, high in itertools.pairwise(edges)
        if high > low
    ]
    order.shuffle(parts)
    merged = functools.reduce(TableScan.merge, parts)
    assert merged.pairs == whole.pairs
    for name in "ab":
        one, other = merged[name], whole[name]
        assert one.column == other.column
        assert (one.counts, one.missing, one.times) == (other.counts, other.missing, other.times)
        if other.numbers is not None:
            assert one.numbers.n == other.numbers.n
            assert one.numbers.mean == pytest.approx(other.numbers.mean, rel=1e-6, abs=1e-6)


def test_a_value_that_holds_nearly_all_rows_is_followed_beyond_the_count(tmp_path):
    """With more different values than are counted, the common one is found all the same."""
    rng = np.random.default_rng(0)
    rare = rng.random(60_000) < 0.05
    frame = pd.DataFrame(
        {"a": np.where(rare, rng.normal(size=60_000), 7.0), "b": np.where(rare, "", "same")}
    )
    frame["b"] = frame["b"].mask(rare, [f"v{one}" for one in range(60_000)])
    frame.to_parquet(tmp_path / "t.parquet")
    scan = scan_table(str(tmp_path / "t.parquet"))
    assert rare.sum() > MOST_COUNTED
    for name, value in (("a", 7.0), ("b", "same")):
        assert scan[name].counts is None
        assert scan[name].top == (value, int((~rare).sum()))
        assert not scan[name].constant


def test_values_that_the_reference_never_had_are_counted(tmp_path):
    """Numbers beyond its range and unseen categories are counted exactly."""
    before, after = mixed(), mixed(seed=1)
    after["number"] = after["number"].where(after.index >= 40, 99.0)
    after["city"] = after["city"].where(after.index >= 30, "Rom")
    before.to_csv(tmp_path / "a.csv", index=False)
    after.to_parquet(tmp_path / "b.parquet")
    scan = scan_table(str(tmp_path / "b.parquet"), reference=scan_table(str(tmp_path / "a.csv")))
    low, high = before["number"].min(), before["number"].max()
    assert scan["number"].outside == ((after["number"] < low) | (after["number"] > high)).sum()
    assert scan["city"].outside == 30
    assert scan["whole"].outside == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2\n1,2,3\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_says_so(tmp_path, text, says):
    """An empty file, a header alone and a row too long are errors, never an empty scan."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        scan_table(str(tmp_path / "t.csv"))
    with pytest.raises(DataError, match="there is no file"):
        scan_table(str(tmp_path / "gone.csv"))


def test_names_that_repeat_or_lack_are_told_apart_as_pandas_does(tmp_path):
    """Columns of one name get .1 and .2, one without a name its place."""
    (tmp_path / "t.csv").write_text('a,a,,"b ""x""",a\n1,2,3,4,5\n')
    agrees(tmp_path / "t.csv")


def test_repeats_are_those_that_pandas_finds(tmp_path):
    """Rows that repeat an earlier one are found by hash at the very places pandas names."""
    frame = mixed(2000).drop(columns=["at", "number", "gappy", "text"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    scan = scan_table(str(tmp_path / "t.csv"))
    kinds = {name: scan[name].column.kind for name in scan.names}
    hashes = row_hashes(str(tmp_path / "t.csv"), list(scan.names), kinds)
    expected = np.flatnonzero(read_frame(str(tmp_path / "t.csv")).duplicated())
    assert len(expected) > 50
    assert repeats(hashes).tolist() == expected.tolist()
    assert n_repeats(hashes) == len(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), max_size=40),
    st.lists(st.integers(0, 9), max_size=40),
)
def test_repeats_and_known_rows_are_those_of_pandas(ours, theirs):
    """Whatever the hashes are, and also where there are none."""
    one, other = (pd.Series(each, dtype="uint64") for each in (ours, theirs))
    assert repeats(one.to_numpy()).tolist() == np.flatnonzero(one.duplicated()).tolist()
    assert n_repeats(one.to_numpy()) == one.duplicated().sum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlguard.data.row_hashes._LOOKED_UP", 7)
        assert known_rows(one.to_numpy(), other.to_numpy()).tolist() == one.isin(other).tolist()


def test_parts_of_a_file_are_hashed_in_the_order_of_its_rows(tmp_path):
    """Several threads over row groups give what one pass over the CSV file gives."""
    frame = mixed(5000).drop(columns=["named", "odd"])
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "t.parquet", row_group_size=700)
    frame.to_csv(tmp_path / "t.csv", index=False)
    scan = scan_table(str(tmp_path / "t.csv"))
    kinds = {name: scan[name].column.kind for name in scan.names}
    hashes = [
        row_hashes(str(tmp_path / name), list(kinds), kinds) for name in ("t.parquet", "t.csv")
    ]
    assert hashes[0].tolist() == hashes[1].tolist()


@pytest.mark.parametrize(
    "values",
    [
        [-3, -3, 5, 5, 5, 0],
        [2**62, 2**62 + 1, 2**62],
        [2**53, 2**53 + 1],
        [-(2**63), 2**63 - 1, 0],
        list(range(-400, 400)),
    ],
)
def test_whole_numbers_are_counted_one_by_one(tmp_path, values):
    """Negative ones, those too large for a float, and too many of them."""
    pd.DataFrame({"a": values}).to_parquet(tmp_path / "t.parquet")
    counts = scan_table(str(tmp_path / "t.parquet"))["a"].counts
    expected = pd.Series(values).value_counts().to_dict()
    assert counts == (expected if len(expected) <= MOST_COUNTED else None)


def test_short_tokens_among_long_texts_are_missing(tmp_path):
    """Empty, named and given tokens are found whatever stands beside them."""
    texts = ["", "NA", "?", "Zürich", "naïve", "n/a", "ab" * 200] * 10
    frame = pd.DataFrame({"a": pd.Series(texts, dtype="str")})
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "t.parquet")
    one = scan_table(str(tmp_path / "t.parquet"), missing_values=["?", "Zürich"])["a"]
    assert (one.missing, one.named_missing) == (30, 20)


def test_a_row_has_one_hash_whatever_its_format(tmp_path):
    """CSV and Parquet, whole numbers and floats, a gap and a NaN: the same row is the same."""
    frame = mixed(500).drop(columns="named")
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.astype({"whole": float, "city": "category"}).to_parquet(tmp_path / "t.parquet")
    hashes = []
    for name in ("t.csv", "t.parquet"):
        scan = scan_table(str(tmp_path / name))
        kinds = {one: scan[one].column.kind for one in scan.names}
        hashes.append(row_hashes(str(tmp_path / name), list(frame.columns), kinds))
    assert hashes[0].tolist() == hashes[1].tolist()
    assert len(set(hashes[0].tolist())) == 500


def test_a_sample_is_rows_of_the_file_with_the_types_of_the_file(tmp_path):
    """A sample holds what the whole frame holds at those rows; all rows where they are few."""
    mixed(3000).to_csv(tmp_path / "t.csv", index=False)
    url, scan = str(tmp_path / "t.csv"), scan_table(str(tmp_path / "t.csv"))
    whole = read_frame(url)
    pd.testing.assert_frame_equal(sample_rows(url, scan, 5000, seed=0), whole)
    some = sample_rows(url, scan, 200, seed=0)
    assert len(some) == 200
    at = whole.set_index("at").loc[some["at"]].reset_index()
    pd.testing.assert_frame_equal(at[whole.columns], some, check_dtype=False)
    assert sample_rows(url, scan, 200, seed=0).equals(some)
    parts = pd.concat(iterate_frames(url, scan), ignore_index=True)
    pd.testing.assert_frame_equal(parts, whole)


def test_times_of_every_iso_form_are_times(tmp_path):
    """Zones, fractions and bare dates are read as times; one word ends it."""
    rows = ["2024-01-31", "2024-02-01T12:00:00", "2024-02-01 12:00:00.5+02:00"]
    pd.DataFrame({"at": rows * 10, "no": ["2024-01-31"] * 29 + ["soon"]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    scan, _ = agrees(tmp_path / "t.csv")
    assert scan["at"].column.kind == "time"
    assert scan["at"].column.low == dt.datetime(2024, 1, 31, tzinfo=dt.UTC).timestamp()
    assert scan["no"].column.kind == "category"


def test_infinite_numbers_have_no_bound(tmp_path):
    """An infinity is counted and leaves the moments alone."""
    pd.DataFrame({"a": [1.0, 2.0, math.inf, -math.inf]}).to_parquet(tmp_path / "t.parquet")
    one = scan_table(str(tmp_path / "t.parquet"))["a"]
    assert (one.numbers.mean, one.numbers.n, one.numbers.n_infinite) == (1.5, 2, 2)
    assert (one.column.low, one.column.high) == (None, None)


@pytest.mark.soak
def test_a_scan_takes_constant_memory(tmp_path):
    """Six times the rows take no more memory, and far less than 600 MiB."""
    peaks = []
    for groups in (2, 12):
        file = tmp_path / f"{groups}.parquet"
        rng = random.Random(0)
        writer = None
        for _ in range(groups):
            numbers = np.random.default_rng(rng.randrange(2**32)).normal(size=(250_000, 19))
            table = pa.table({f"x{one}": numbers[:, one] for one in range(19)})
            table = table.append_column("c", pa.array(["a", "b"] * 125_000))
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
        writer.close()
        code = (
            "import sys\nfrom mlguard.data.scan import scan_table\n"
            "scan_table(sys.argv[1])\n"
            # Not ru_maxrss, which a child has from who started it.
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        peaks.append(int(done.stdout) / 1024)
    assert max(peaks) < 600
    assert peaks[1] < peaks[0] + 100
