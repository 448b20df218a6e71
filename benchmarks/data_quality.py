"""How fast the one pass over the data is, beside what others need for the same questions.

::

    python -m benchmarks.data_quality                    10 million rows, 20 columns: minutes
    python -m benchmarks.data_quality --rows 1000000     a tenth of it
    python -m benchmarks.data_quality --file rows.parquet    a file that an earlier run --kept
    python -m benchmarks.data_quality --python /path/to/venv/bin/python    peers of another venv:
        uv venv peers && uv pip install --python peers/bin/python pandera pandas pyarrow polars

The one pass answers for schema, types, missing values, ranges, categories, constants and balance;
exact duplicates, and rows that a second file of a tenth of the rows has too, are timed apart.

Each runs in a process of its own; memory is the largest proportional set size (PSS) seen while
it ran, and seconds of CPU tell what a quiet machine would take where this one is not.  Great
Expectations is part of mlguard; pandera and polars are not, and are measured where the
interpreter of ``--python`` has them.  The questions are those all can answer: types, missing
values and ranges of every number, and the categories of the texts.  Prints, and asserts
nothing: times belong to the machine they were measured on.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK = 500_000

OURS = """
from mlguard.data.scan import scan_table
scan_table(sys.argv[1], pairs=[("y", "sex")])
"""
OURS_REPEATS = """
from mlguard.data.row_hashes import n_repeats, row_hashes
from mlguard.data.scan import scan_table
scan = scan_table(sys.argv[1])
start, work = time.perf_counter(), time.process_time()
names = list(scan.names)
n_repeats(row_hashes(sys.argv[1], names, {one: scan[one].column.kind for one in names}))
"""
OURS_OVERLAP = """
from mlguard.data.row_hashes import known_rows, row_hashes
from mlguard.data.scan import scan_table
scan = scan_table(sys.argv[1])
start, work = time.perf_counter(), time.process_time()
names = list(scan.names)
kinds = {one: scan[one].column.kind for one in names}
train, test = (row_hashes(one, names, kinds) for one in sys.argv[1:3])
known_rows(test, train).sum()
"""
GREAT_EXPECTATIONS = """
import os
os.environ["GX_ANALYTICS_ENABLED"] = "false"
import pandas as pd
from mlguard.checks.expectations import validate
frame = pd.read_parquet(sys.argv[1])
null = "expect_column_values_to_not_be_null"
suite = [{"type": null, "kwargs": {"column": one}} for one in frame]
suite += [
    {"type": "expect_column_values_to_be_between",
     "kwargs": {"column": one, "min_value": -1e9, "max_value": 1e9}}
    for one in frame.select_dtypes("number")
]
suite += [
    {"type": "expect_column_values_to_be_in_set",
     "kwargs": {"column": one, "value_set": sorted(frame[one].unique())}}
    for one in ("city", "grade", "sex")
]
validate(tuple(suite), {"data": frame})
"""
PANDERA = """
import pandas as pd
import pandera.pandas as pa
frame = pd.read_parquet(sys.argv[1])
columns = {}
for one in frame:
    if frame[one].dtype.kind in "if":
        columns[one] = pa.Column(checks=pa.Check.in_range(-1e9, 1e9), nullable=one == "x8")
    elif one in ("city", "grade", "sex"):
        columns[one] = pa.Column(checks=pa.Check.isin(sorted(frame[one].unique())))
    else:
        columns[one] = pa.Column()
pa.DataFrameSchema(columns).validate(frame, lazy=True)
"""
POLARS = """
import polars as pl
from polars import selectors as cs
lazy = pl.scan_parquet(sys.argv[1])
numbers = lazy.select(
    cs.numeric().null_count().name.suffix("_null"), cs.numeric().min().name.suffix("_min"),
    cs.numeric().max().name.suffix("_max"), cs.numeric().mean().name.suffix("_mean"),
    cs.string().null_count().name.suffix("_null"),
).collect(engine="streaming")
for one in ("city", "grade", "sex"):
    lazy.group_by(one).len().collect(engine="streaming")
"""


def write(path, n, seed=0):
    """Write the table: 13 numbers, 4 texts, flags and a constant, a gap in one column."""
    rng, writer = np.random.default_rng(seed), None
    cities = np.array([f"city {one}" for one in range(200)])
    for start in range(0, n, CHUNK):
        m = min(CHUNK, n - start)
        columns = {f"x{one}": rng.normal(size=m) for one in range(8)}
        columns |= {
            "x8": np.where(rng.random(m) < 0.1, np.nan, rng.normal(size=m)),
            "amount": rng.lognormal(3, 1, m).round(2),
            "age": rng.integers(18, 90, m),
            "visits": rng.integers(0, 10, m),
            "id": np.arange(start, start + m),
            "flag": rng.random(m) < 0.2,
            "same": np.ones(m, int),
            "city": rng.choice(cities, m),
            "grade": rng.choice(np.array(list("ABCDE")), m),
            "sex": rng.choice(np.array(["F", "M"]), m),
            "code": np.char.add("c", rng.integers(0, 100_000, m).astype(str)),
            "y": rng.integers(0, 2, m),
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def measured(python, code, *files):
    """Run code on files; return seconds, seconds of CPU (imports apart) and peak PSS in MiB."""
    imports = "\n".join(
        line for line in code.splitlines() if line.startswith(("import", "from", "os.environ"))
    )
    lines = [
        "import sys, time",
        imports,
        "start, work = time.perf_counter(), time.process_time()",
        code,
        "print(time.perf_counter() - start, time.process_time() - work)",
    ]
    body = "\n".join(lines)
    child = subprocess.Popen(
        [python, "-c", body, *map(str, files)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak, process = 0, psutil.Process(child.pid)
    while child.poll() is None:
        try:
            peak = max(peak, process.memory_full_info().pss)
        except (psutil.Error, OSError):
            break
        time.sleep(0.1)
    out, err = child.communicate()
    if child.returncode:
        last = err.strip().splitlines()[-1:] or [f"it ended with code {child.returncode}"]
        return None, None, last
    seconds, work = map(float, out.split()[-2:])
    return seconds, work, peak / 2**20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--file", type=Path, help="this file, whose columns are as those written")
    parser.add_argument("--keep", type=Path, help="write the file here, for --file")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--only", default="", help="run those whose name holds this")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = told.file or told.keep or Path(folder) / "rows.parquet"
        if told.file is None:
            write(file, told.rows)
        rows = pq.read_metadata(file).num_rows
        second = Path(folder) / "second.parquet"
        print(f"{rows:,} rows, 20 columns, {file.stat().st_size / 2**20:.0f} MiB of Parquet")
        runs = [
            ("mlguard, one pass", sys.executable, OURS),
            ("mlguard, exact duplicates", sys.executable, OURS_REPEATS),
            ("mlguard, overlap of two files", sys.executable, OURS_OVERLAP),
            ("polars, streaming", told.python, POLARS),
            ("pandera on pandas", told.python, PANDERA),
            ("Great Expectations on pandas", sys.executable, GREAT_EXPECTATIONS),
        ]
        if importlib.util.find_spec("great_expectations") is None:
            runs.pop()
        for name, python, code in runs:
            if told.only not in name:
                continue
            if code == OURS_OVERLAP:
                write(second, max(1, rows // 10), seed=1)
            seconds, work, memory = measured(python, code, file, second)
            if seconds is None:
                print(f"{name:30} not measured: {' '.join(memory)}", flush=True)
                continue
            busy = f"{work:8.1f} s of CPU"
            rate = f"{rows / seconds:12,.0f} rows/s {memory:8,.0f} MiB PSS"
            print(f"{name:30}{seconds:8.1f} s {busy} {rate}", flush=True)


if __name__ == "__main__":
    main()
