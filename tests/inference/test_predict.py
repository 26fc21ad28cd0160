"""The transform: batches in, batches with predictions out, failed rows beside them or as an error."""

import doctest

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler
from apache_beam.testing.util import assert_that

import inference
from inference import Predict, SavedModelHandler
from inference.marks import rows_of

BIRTHS = pa.RecordBatch.from_pydict(
    {
        "source_id": ["a", "b", "c"],
        "is_male": ["True", "False", "True"],
        "mother_race": ["White", "Black", "Other"],
        "mother_married": ["True", "False", "True"],
        "cigarette_use": ["False", "True", "False"],
        "alcohol_use": ["False", "False", "False"],
        "mother_age": ["32", "19", "many"],
        "plurality": [1, 2, 1],
        "gestation_weeks": [40.0, 33.0, 39.0],
    }
)


def pipeline():
    return beam.Pipeline(runner="FnApiRunner")


def test_the_docstring_examples_run():
    import inference.columns.binding
    import inference.columns.coercion
    import inference.saved_model.handler

    for module in (inference.saved_model.handler, inference.columns.coercion, inference.columns.binding):
        assert doctest.testmod(module).failed == 0
    assert "Predict" in (inference.saved_model.handler.SavedModelHandler.__doc__ or "")


def test_public_names():
    assert sorted(inference.__all__) == [
        "Endpoint",
        "EndpointHandler",
        "Predict",
        "Rejected",
        "SavedModelHandler",
        "Target",
    ]
    assert all(getattr(inference, name) for name in inference.__all__)


def test_good_batches_get_their_outputs_beside_their_columns():
    def check(batches):
        [batch] = batches
        assert batch.schema.names == [*BIRTHS.schema.names, "predictions"]
        assert all(0 < value < 15 for value in batch["predictions"].to_pylist())

    with pipeline() as p:
        assert_that(p | beam.Create([BIRTHS.slice(0, 2)]) | Predict(SavedModelHandler("model/trained/v1")), check)


def test_a_failed_row_fails_the_pipeline_unless_it_is_asked_for():
    p = pipeline()
    _ = p | beam.Create([BIRTHS]) | Predict(SavedModelHandler("model/trained/v1"))
    with pytest.raises(Exception, match="1 of 3 rows have no prediction, first row 2: column 'mother_age': 'many'"):
        p.run()


@pytest.mark.parametrize("keyed", [False, True])
def test_failed_rows_come_beside_the_others(keyed):
    handler = SavedModelHandler("model/trained/v1", max_batch_size=2)

    def check_good(found):
        [element] = found
        batch = element[1] if keyed else element
        assert batch["source_id"].to_pylist() == ["a", "b"]
        assert rows_of(batch).tolist() == [0, 1]
        assert batch.schema.names == [*BIRTHS.schema.names, "predictions"]

    def check_bad(found):
        [rejected] = found
        assert rejected.key == ("k" if keyed else None)
        assert rejected.rows["source_id"].to_pylist() == ["c"]
        assert rejected.failures[2].stage == "coerce"

    with pipeline() as p:
        batches = p | beam.Create([("k", BIRTHS) if keyed else BIRTHS])
        good, bad = batches | Predict(KeyedModelHandler(handler) if keyed else handler).with_exception_handling()
        assert_that(good, check_good, label="good")
        assert_that(bad, check_bad, label="bad")


def test_small_batches_are_gathered_by_rows_for_one_call(tmp_path):
    log = tmp_path / "sizes"

    class Counting(SavedModelHandler):
        def run_inference(self, batch, model, inference_args=None):
            with open(log, "a") as file:
                print(sum(b.num_rows for b in batch), file=file)
            return super().run_inference(batch, model, inference_args)

    good = BIRTHS.slice(0, 2)
    with pipeline() as p:
        _ = p | beam.Create([good] * 50) | Predict(Counting("model/trained/v1", max_batch_size=20))
    sizes = [int(line) for line in log.read_text().split()]
    assert sum(sizes) == 100
    assert max(sizes) == 20
    assert len(sizes) <= 6
