"""Builds the wide-and-deep network of the babyweight model: how it is trained and what is exported.

Both see a row as the same terms: one indicator a class of each category, and the bent lines of each number. In
training they are one matrix; in the exported graph each category is a lookup, so that the sum over terms is the
same additions in the same order for a row whatever batch it comes in.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras  # type: ignore[import-untyped, unused-ignore]
import numpy as np
import numpy.typing as npt
import tensorflow as tf  # type: ignore[import-untyped, unused-ignore]

from model.births import CATEGORIES, HIDDEN_UNITS, NOT_STATED, NUMBERS, Births, CategoricalInput, NumericInput

Floats = npt.NDArray[np.float32]

_LIGHTEST, _HEAVIEST = 0.5, 15.0
_COPIES = 8
_FORGET = 0.1
_BATCH = 256
_RATE = 5e-3
_WIDE_PENALTY = 1e-4
_DEEP_PENALTY = 2e-2


class Encoder:
    """Turns a feature's values into classes or terms, in training as in the exported graph.

    Attributes:
      tables: the lookup table of each category, by name.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        for category in CATEGORIES:
            ids = {name: i for i, name in enumerate(category.classes, 1)}
            words = list(category.words)
            classes = tf.constant([ids[category.words[word]] for word in words], tf.int64)
            values = tf.lookup.KeyValueTensorInitializer(tf.constant(words), classes)
            self.tables[category.name] = tf.lookup.StaticHashTable(values, default_value=0)

    def classes(self, category: CategoricalInput, strings: Any) -> Any:
        """Returns the classes of strings, int64 [batch]; 0 for an unknown word.

        Spaces around a word and its case do not count. Each distinct string is looked at once, which is what
        takes the time.
        """
        distinct = tf.unique(strings)
        words = tf.strings.lower(tf.strings.strip(distinct.y))
        return tf.gather(self.tables[category.name].lookup(words), distinct.idx)

    @staticmethod
    def terms(number: NumericInput, values: Any) -> list[Any]:
        """Returns the terms of a number, float32 [batch] each: the value, and what is above each bend."""
        unknown = tf.logical_or(tf.math.is_nan(values), values >= NOT_STATED)
        values = tf.where(unknown, number.typical, tf.clip_by_value(values, number.low, number.high))
        bent = [tf.nn.relu(values - bend) for bend in number.bends]
        return [term * (1.0 / number.unit) for term in (values - number.typical, *bent)]


class Terms:
    """Holds the terms of births as one matrix, for training.

    Args:
      births: the births; the categories and numbers that they have are the ones the model uses.
    """

    def __init__(self, births: Births) -> None:
        encoder = Encoder()
        self.categories = [category for category in CATEGORIES if category.name in births.strings]
        self.numbers = [number for number in NUMBERS if number.name in births.numbers]
        self._classes = [
            encoder.classes(category, tf.constant(births.strings[category.name])).numpy()
            for category in self.categories
        ]
        columns = [Encoder.terms(number, births.numbers[number.name]) for number in self.numbers]
        self._numeric: Floats = np.stack([term.numpy() for terms in columns for term in terms], axis=1)

    def matrix(self, rows: npt.NDArray[np.int64], forget: np.random.Generator | None = None) -> Floats:
        """Returns the terms of some rows, float32 [rows, terms].

        Args:
          rows: which rows.
          forget: if given, chooses a tenth of the categories' values to be taken for unknown, so that the model
            learns what to say when one is.
        """
        parts: list[Floats] = []
        for category, classes in zip(self.categories, self._classes, strict=True):
            chosen = classes[rows]
            if forget is not None:
                chosen = np.where(forget.random(len(rows)) < _FORGET, 0, chosen)
            parts.append(np.eye(len(category.classes) + 1, dtype=np.float32)[chosen])
        return np.concatenate([*parts, self._numeric[rows]], axis=1)


class Network:
    """Computes weights from the terms of births: a wide-and-deep network, a linear part plus one hidden layer.

    Args:
      terms: what it is trained on.
      weight: the weights in pounds, float32 [rows].
      rows: the rows to train on.
      epochs: how many times to go through them.
      seed: decides the initial weights, the order and the forgetting.
    """

    def __init__(self, terms: Terms, weight: Floats, rows: npt.NDArray[np.int64], *, epochs: int, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        self._terms = terms
        rows = np.tile(rows, _COPIES)
        x = terms.matrix(rows, np.random.default_rng(seed))
        mean = float(weight[rows].mean())
        inputs = keras.Input([x.shape[1]])
        penalty = keras.regularizers.L2(_DEEP_PENALTY)
        self._wide = keras.layers.Dense(
            1,
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(mean),
            kernel_regularizer=keras.regularizers.L2(_WIDE_PENALTY),
        )
        self._hidden = keras.layers.Dense(HIDDEN_UNITS, activation="relu", kernel_regularizer=penalty)
        self._deep = keras.layers.Dense(1, use_bias=False, kernel_regularizer=penalty)
        outputs = keras.layers.add([self._wide(inputs), self._deep(self._hidden(inputs))])
        self._model = keras.Model(inputs, outputs)
        steps = epochs * -(-len(rows) // _BATCH)
        rate = keras.optimizers.schedules.CosineDecay(_RATE, steps)
        self._model.compile(optimizer=keras.optimizers.Adam(rate), loss="mse")
        self._model.fit(x, weight[rows, None], batch_size=_BATCH, epochs=epochs, verbose=0)

    def predict(self, rows: npt.NDArray[np.int64]) -> Floats:
        """Returns the predicted weights in pounds, float32 [rows]."""
        predicted = self._model(self._terms.matrix(rows)).numpy()[:, 0]
        clipped: Floats = np.clip(predicted, _LIGHTEST, _HEAVIEST)
        return clipped

    def export(self, path: str) -> None:
        """Writes the network as a SavedModel with the signatures `serving_default` and `serving_examples`.

        Args:
          path: the folder to write to.
        """
        encoder = Encoder()
        predict = self._graph(encoder)
        strings = {category.name: tf.TensorSpec([None], tf.string, category.name) for category in CATEGORIES}
        floats = {number.name: tf.TensorSpec([None], tf.float32, number.name) for number in NUMBERS}
        features = {name: tf.io.FixedLenFeature([], tf.string, "") for name in strings}
        features |= {name: tf.io.FixedLenFeature([], tf.float32, float("nan")) for name in floats}

        def serving_default(**inputs: Any) -> dict[str, Any]:
            return {"predictions": predict(inputs)}

        def serving_examples(examples: Any) -> dict[str, Any]:
            return {"predictions": predict(tf.io.parse_example(examples, features))}

        root = tf.Module()
        root.tables = list(encoder.tables.values())
        signatures = {
            "serving_default": tf.function(serving_default, autograph=False).get_concrete_function(**strings, **floats),
            "serving_examples": tf.function(serving_examples, autograph=False).get_concrete_function(
                tf.TensorSpec([None], tf.string, "examples")
            ),
        }
        options = tf.saved_model.SaveOptions(save_debug_info=False)
        tf.saved_model.save(root, os.fspath(path), signatures=signatures, options=options)

    def _graph(self, encoder: Encoder) -> Callable[[dict[str, Any]], Any]:
        """Returns the prediction as a function of the inputs, to be traced.

        The linear part goes along as one more unit, whose lower limit never holds.
        """
        kernel = np.concatenate([self._hidden.kernel.numpy(), self._wide.kernel.numpy()], axis=1)
        bias = np.concatenate([self._hidden.bias.numpy(), self._wide.bias.numpy()])
        weights = np.append(self._deep.kernel.numpy()[:, 0], np.float32(1))
        floor = np.append(np.zeros(HIDDEN_UNITS, np.float32), np.float32(-1e9))
        per_category = [len(category.classes) + 1 for category in self._terms.categories]
        per_number = [len(number.bends) + 1 for number in self._terms.numbers]
        blocks: Sequence[Floats] = np.split(kernel, np.cumsum(per_category + per_number)[:-1])
        tables, slopes = blocks[: len(per_category)], blocks[len(per_category) :]

        def predict(inputs: dict[str, Any]) -> Any:
            parts = [tf.constant(bias)[None, :]]
            for category, table in zip(self._terms.categories, tables, strict=True):
                parts.append(tf.gather(table, encoder.classes(category, inputs[category.name])))
            for number, slope in zip(self._terms.numbers, slopes, strict=True):
                terms = encoder.terms(number, inputs[number.name])
                parts += [term[:, None] * row[None, :] for term, row in zip(terms, slope, strict=True)]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            # A product with one column would be summed in another order at batch 1 than at any other.
            weight = tf.reduce_sum(tf.maximum(total, floor) * weights, axis=1, keepdims=True)
            return tf.clip_by_value(weight, _LIGHTEST, _HEAVIEST)

        return predict
