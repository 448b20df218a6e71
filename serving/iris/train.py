"""Write the data and the model of ``iris``: ``data/train.csv``, ``data/test.csv``, ``model.skops``.

The flowers are the 150 that come with scikit-learn, so nothing is downloaded.  Half of them, 25
of each species, are kept for testing: with the usual fifth, 10 of each, hardly any claim about
the model could be shown.  The split is seeded, so every run writes the same data.

Run it with ``python serving/iris/train.py``, from anywhere.  mlguard runs it by itself where one
of its files is missing.
"""

import os
from pathlib import Path

import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
SEED = 0
FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
TARGET = "species"


def write(path, write_to):
    """Let ``write_to`` fill a file beside ``path``, then put it in place: all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    write_to(unfinished)
    unfinished.replace(path)


def main():
    """Make everything that ``app.toml`` names."""
    flowers = load_iris(as_frame=True).frame
    flowers.columns = [*FEATURES, TARGET]
    train, test = train_test_split(
        flowers, test_size=0.5, stratify=flowers[TARGET], random_state=SEED
    )
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(train[FEATURES], train[TARGET])

    write(HERE / "data" / "train.csv", lambda path: train.to_csv(path, index=False))
    write(HERE / "data" / "test.csv", lambda path: test.to_csv(path, index=False))
    write(HERE / "model.skops", lambda path: skops.io.dump(model, path))
    print(f"iris: {len(train)} flowers to train on, {len(test)} to test on")
    print(f"model.skops: {model.score(test[FEATURES], test[TARGET]):.3f} of the test part right")


if __name__ == "__main__":
    main()
