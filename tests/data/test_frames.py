"""Tables come out of files the same, whatever the format, or with a clear error."""

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest

from mlguard.data.frames import file_digest, read_frame, write_frame
from mlguard.errors import DataError


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "deep/er/t.csv.bz2"])
def test_a_table_survives_every_format(tmp_path, name):
    """What is written is read back: values, types, missing cells and order."""
    frame = pd.DataFrame(
        {"n": [1.5, np.nan], "i": [1, 2], "b": [True, False], "s": ['é,"\n', None]}
    )
    frame["s"] = frame["s"].astype("str")
    url = str(tmp_path / name)
    write_frame(frame, url)
    pd.testing.assert_frame_equal(read_frame(url), frame)


def test_an_fsspec_url_is_read_and_written():
    """Any store that fsspec knows will do."""
    write_frame(pd.DataFrame({"x": [1]}), "memory://folder/t.parquet")
    assert read_frame("memory://folder/t.parquet")["x"].tolist() == [1]
    assert len(file_digest("memory://folder/t.parquet")) == 64


def test_tokens_mean_missing_where_the_settings_say_so(tmp_path):
    """missing_values work from CSV and Parquet; without them a column may be a number."""
    frame = pd.DataFrame({"age": ["30", "?", "41"], "job": ["cook", "?", "empty"]})
    for name in ("t.csv", "t.parquet"):
        write_frame(frame, str(tmp_path / name))
        found = read_frame(str(tmp_path / name), missing_values=["?", "empty"])
        assert found["job"].isna().tolist() == [False, True, True]
        assert found["age"].isna().tolist() == [False, True, False]
    assert read_frame(str(tmp_path / "t.csv"), missing_values=["?"])["age"].dtype == np.float64


def test_not_available_is_missing_among_numbers_and_text_among_texts(tmp_path):
    """NA may be Namibia, but not among numbers."""
    (tmp_path / "t.csv").write_text("n,country\n1,NA\nNA,DE\nnull,\n")
    found = read_frame(str(tmp_path / "t.csv"))
    assert found["n"].isna().tolist() == [False, True, True]
    assert found["n"].dtype == np.float64
    assert found["country"].tolist()[:2] == ["NA", "DE"]
    assert found["country"].isna().tolist() == [False, False, True]


def test_categorical_columns_become_text(tmp_path):
    """A table means the same from Parquet as from CSV."""
    pd.DataFrame({"c": pd.Categorical(["a", "b", None])}).to_parquet(tmp_path / "t.parquet")
    found = read_frame(str(tmp_path / "t.parquet"))["c"]
    assert isinstance(found.dtype, pd.StringDtype)
    assert found.isna().tolist() == [False, False, True]


def test_columns_come_in_the_order_asked_for(tmp_path):
    """Only the named columns, in their order; an absent one names the nearest."""
    write_frame(pd.DataFrame({"income": [1], "age": [2], "sex": ["F"]}), str(tmp_path / "t.csv"))
    url = str(tmp_path / "t.csv")
    assert list(read_frame(url, columns=["sex", "income"]).columns) == ["sex", "income"]
    with pytest.raises(DataError, match="no column 'incme'; did you mean 'income'") as raised:
        read_frame(url, columns=["incme"])
    assert "age" in raised.value.hint


BROKEN = {
    "empty.csv": b"",
    "header.csv": b"a,b\n",
    "empty.parquet": b"",
    "text.parquet": b"a,b\n1,2\n",
    "cut.csv.gz": gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)[:-30],
    "text.csv.gz": b"a,b\n1,2\n",
    "ragged.csv": b"a,b\n1,2\n1,2,3,4\n",
    "latin.csv": "a\nm\xfcller\n".encode("latin-1"),
    "binary.csv": bytes(range(256)) * 10,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_a_clear_error(tmp_path, name):
    """Whatever is wrong with the bytes: one kind of error, naming the file, with advice."""
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(DataError) as raised:
        read_frame(str(tmp_path / name))
    assert name in raised.value.message
    assert raised.value.hint


def test_a_missing_file_says_where_and_what_to_do(tmp_path):
    """The path is named in full, and so is the way to make the file."""
    path = str(tmp_path / "nowhere" / "test.csv")
    for read in (read_frame, file_digest):
        with pytest.raises(DataError, match="there is no file") as raised:
            read(path)
        assert path in raised.value.message
        assert "train" in raised.value.hint


def test_a_folder_is_no_table(tmp_path):
    """A folder is refused with the advice to name a file."""
    with pytest.raises(DataError) as raised:
        read_frame(str(tmp_path))
    assert "not a folder" in raised.value.hint


def test_an_unknown_protocol_is_a_data_error():
    """A URL that fsspec cannot open is the caller's mistake."""
    with pytest.raises(DataError, match="cannot be read"):
        read_frame("carrierpigeon://coop/t.csv")


def test_the_digest_is_of_the_bytes(tmp_path):
    """The same as sha256sum, and of the packed bytes where a file is packed."""
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n"))
    assert file_digest(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_table_that_cannot_be_written_is_a_data_error(tmp_path):
    """A file where a folder should be is named."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_frame(pd.DataFrame({"x": [1]}), str(tmp_path / "taken"))


def test_two_columns_of_one_name_are_refused(tmp_path):
    """Parquet can hold them; nobody could tell which one is meant."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    pq.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="cannot be read: Multiple matches"):
        read_frame(str(tmp_path / "t.parquet"))


def test_repeated_column_names_are_told_apart(shared_data):
    """COMPAS repeats two names in its header: both columns stay."""
    frame = read_frame(str(shared_data / "fairness/compas/compas-scores-two-years.csv.gz"))
    assert len(frame) == 7214
    assert frame.columns.is_unique
    assert "decile_score" in frame.columns
