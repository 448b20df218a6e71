"""A version is what it does, whatever its file is called and whoever may read it."""

import dataclasses
import hashlib
import json

import pytest
from sklearn.linear_model import LogisticRegression

from mlguard.errors import ModelFileError
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.schema import input_schema


@pytest.fixture
def manifest(numbers, make_settings, tmp_path):
    model = LogisticRegression().fit(numbers[["a", "b"]], numbers["y"])
    save_model(model, tmp_path / "m.skops")
    settings = make_settings(model={"trusted_types": ["a.B"], "thresholds": {"default": 0.4}})
    schema = input_schema(model, numbers, settings)
    return Manifest.of(tmp_path / "m.skops", schema, settings.model)


def test_a_manifest_describes_the_file_by_the_settings(manifest, tmp_path):
    """Digest of the bytes, format, schema, threshold and permissions."""
    content = (tmp_path / "m.skops").read_bytes()
    assert manifest.model_sha256 == hashlib.sha256(content).hexdigest()
    assert (manifest.model_format, manifest.runtime, manifest.task) == (
        "skops",
        "original",
        "classification",
    )
    assert manifest.schema.names == ("a", "b")
    assert manifest.thresholds == {"default": 0.4}
    assert manifest.trusted_types == ("a.B",)


def test_the_json_round_trip_keeps_everything(manifest):
    """A manifest comes back from JSON equal, and keys of a later version are ignored."""
    document = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json({**document, "later": 1}) == manifest
    assert Manifest.from_json(document).digest == manifest.digest


def test_the_digest_changes_with_what_decides_an_answer(manifest):
    """Bytes, threshold, order of features and predictor code make another version."""
    schema = manifest.input_schema
    changes = [
        {"model_sha256": "0" * 64},
        {"thresholds": {"default": 0.5}},
        {"input_schema": {**schema, "features": schema["features"][::-1]}},
        {"input_schema": {**schema, "classes": [0, 1]}},
        {"predictor_code": {"predictor.py": "code"}},
    ]
    digests = {dataclasses.replace(manifest, **change).digest for change in changes}
    assert len(digests | {manifest.digest}) == len(changes) + 1


def test_the_digest_is_the_same_for_other_data_and_permissions(manifest):
    """Ranges seen in the data of the day and who may read the file do not make a version."""
    schema = manifest.input_schema
    features = [{**one, "low": -99.0} for one in schema["features"]]
    for change in (
        {"input_schema": {**schema, "features": features}},
        {"trusted_types": ()},
        {"allow_pickle": True},
        {"thresholds": dict(manifest.thresholds)},
    ):
        assert dataclasses.replace(manifest, **change).digest == manifest.digest
    whole = dataclasses.replace(manifest, thresholds={"default": 1})
    assert whole.digest == dataclasses.replace(manifest, thresholds={"default": 1.0}).digest


def test_a_file_that_is_no_model_has_no_manifest(manifest, make_settings, tmp_path):
    """A missing file is a model-file error, not a data error."""
    with pytest.raises(ModelFileError, match="does not exist"):
        Manifest.of(tmp_path / "no.skops", manifest.schema, make_settings().model)
