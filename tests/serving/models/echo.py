"""A classifier of texts and bytes that answers what it was asked."""

import numpy as np


class Echo:
    def predict(self, rows):
        texts = [row.decode() if isinstance(row, bytes) else row for row in list(rows)]
        return np.array(texts, dtype=object)
