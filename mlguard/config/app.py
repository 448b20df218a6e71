"""What an app is in ``app.toml``: its contract, its data and its model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from mlguard.config.values import KeyName, OneOrMany, Ratio, Table, Text

InputType = Literal["doubles", "floats", "ints", "strings", "bytes", "table"]


class AppTable(Table):
    """``[app]``: the decision this model makes, and for whom."""

    description: Text = Field(description="What the app predicts, in a sentence.")
    owner: Text = Field(description="Who answers for it: a person or a team, with an address.")
    decision: Text = Field(description="What is decided with a prediction.")
    success_metric: Text = Field(description="What gets better in the world if it works.")
    task: Literal["classification", "regression"] = Field(
        "classification", description="What kind of prediction it is."
    )
    input: InputType = Field("doubles", description="Type of one input row, as in Clipper.")
    strict_types: bool = Field(False, description="Numbers as strict as Clipper's own.")
    slo_ms: float = Field(100, gt=0, description="Time after which the default is answered.")
    default_output: str = Field("None", description="Answer where no model can answer.")
    max_wait_ms: float = Field(0, ge=0, description="How long a batch may wait to fill.")
    cache_mib: float = Field(
        0,
        ge=0,
        description="Memory for the answers to rows that were asked before, per version and "
        "front end, in MiB; 0: none are kept.",
    )
    keys: list[KeyName] = Field(
        default_factory=list,
        description="Names of the keys of which a caller shows one to predict and to send labels; "
        "a key is in `MLGUARD_KEY_<NAME>`, or in the file that `MLGUARD_KEY_<NAME>_FILE` names. "
        "Empty: anybody may ask.",
    )
    uncertainty: bool = Field(
        False,
        description="Whether answers carry a set of classes, or an interval of values, that "
        "holds the truth as often as `coverage` says.",
    )
    coverage: float = Field(
        0.9, gt=0.5, lt=1, description="How often the truth is in the set or interval."
    )
    unusual_rows: Literal["pass", "flag", "default"] = Field(
        "pass",
        description="What is done with a row that holds a value outside the range of the "
        "version's reference data, a category that was not in it, or nothing where it never "
        "lacked anything: `pass` answers it like any other and does not look, `flag` answers it "
        "and says in the answer what is unusual, `default` answers the default output.",
    )
    groups_affect_decisions: bool = Field(
        False,
        description="Whether a request's group chooses the threshold that its answer is taken "
        "with. The model itself never sees it.",
    )


class DataTable(Table):
    """``[data]``: files of labelled rows, and what their columns mean."""

    train: str = Field("", description="CSV or Parquet file, or fsspec URL, to train on.")
    test: Text = Field(description="CSV or Parquet file, or fsspec URL, to judge on.")
    dev: str = Field(
        "",
        description="Rows like the training rows that the model was not fitted on; with them "
        "variance and a change of the data can be told apart.",
    )
    calibration: str = Field(
        "",
        description="Rows that the uncertainty of answers is measured on. Default: half of the "
        "test rows; its coverage is then judged on the other half.",
    )
    target: Text = Field("y", description="Column to predict.")
    sensitive: OneOrMany = Field(
        default_factory=list, description="Columns that name the groups that are compared."
    )
    time: str = Field("", description="Column with each row's time.")
    id: str = Field("", description="Column that identifies a row.")
    missing_values: list[str] = Field(
        default_factory=list, description="Tokens that mean missing, beside empty cells."
    )
    features: list[str] = Field(
        default_factory=list,
        description="Columns the model sees, in order. Default: the model's own names, "
        "else all but target, sensitive, time and id.",
    )


class ModelTable(Table):
    """``[model]``: the candidate's file and how far it is trusted."""

    path: str = Field(
        "model.skops",
        description="File of the candidate: skops, ONNX, or joblib and pickle; or a class of "
        'yours with a method predict, as "predictor.py:Class".',
    )
    files: list[str] = Field(
        default_factory=list,
        description="Files that the class of `path` needs, in or below the folder of its source.",
    )
    train: str = Field("", description="Script that writes data and model where they are missing.")
    trusted_types: list[str] = Field(
        default_factory=list, description="Types that a skops file may name beside the known ones."
    )
    allow_pickle: bool = Field(False, description="Allow joblib and pickle files, which run code.")
    allow_code: bool = Field(False, description="Allow a Python class as the model, which is code.")
    runtime: Literal["auto", "original", "onnx"] = Field(
        "auto",
        description="What serves: a compiled model where it answers all test rows as the "
        "original does, else the original; the original; or an ONNX graph, and nothing where "
        "its answers differ.",
    )
    compile_tolerance: float = Field(
        1e-4,
        gt=0,
        le=0.1,
        description="Largest difference of a score that a compiled model may have; for a "
        "regression, in standard deviations of its answers.",
    )
    thresholds: dict[str, Ratio] = Field(
        default_factory=lambda: {"default": 0.5},
        description='Score from which the positive class is answered: "default", and where '
        '`groups_affect_decisions` is true, groups of one attribute as "sex=F".',
    )
    replicas: int = Field(1, ge=1, le=256, description="Processes that the model runs in.")
    memory_mib: int = Field(2048, ge=64, description="Memory limit of a model's process.")
    wall_limit_s: float = Field(30, gt=0, description="Longest that one batch may take.")
    cpu_limit_s: float = Field(
        60,
        ge=0.1,
        le=86_400,
        description="Most processor time of a model's process for one batch, all its threads "
        "together, and what they go on with afterwards.",
    )
    heartbeat_s: float = Field(
        10,
        ge=0.1,
        le=3600,
        description="A model's process that has nothing to do and gives no sign of life for so "
        "long is replaced.",
    )

    @property
    def threshold_attribute(self) -> str:
        """The attribute that the thresholds tell apart; empty where one holds for all."""
        return next((key.partition("=")[0] for key in self.thresholds if key != "default"), "")

    @model_validator(mode="after")
    def _readable_thresholds(self) -> Self:
        if "default" not in self.thresholds:
            raise ValueError('thresholds needs a key "default", for whoever names no group')
        attributes = set()
        for key in self.thresholds:
            attribute, _, value = key.partition("=")
            written = attribute.strip() == attribute and value.strip() == value
            if key != "default" and not (attribute and value and written):
                raise ValueError(f'thresholds holds {key!r}; write a group as "sex=F"')
            attributes |= {attribute} - {"default"}
        if len(attributes) > 1:
            raise ValueError(
                f"thresholds tells {' and '.join(sorted(attributes))} apart; choose one "
                "attribute, or nobody could say which threshold holds for a person in two groups"
            )
        return self
