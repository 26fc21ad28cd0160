"""A model that is followed: newer versions take over between two batches, and what does not fit never does."""

import gc
import logging
import shutil
import threading

import pyarrow as pa
import pytest

from inference.marks import failures_of
from inference.saved_model.handler import SavedModelHandler
from inference.saved_model.hot_swap import Followed
from tests.support.waiting import wait_until

tf = pytest.importorskip("tensorflow")

EVERY_S = 0.02


def save(folder, version, factor, output="y"):
    """A version that multiplies; put in its place at once, or file by file with `version` None."""
    module = tf.Module()
    module.f = tf.function(lambda x: {output: x * factor}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    made = folder / f".making-{version}"
    tf.saved_model.save(module, str(made), signatures={"serving_default": module.f.get_concrete_function()})
    made.rename(folder / version)


def handler(folder):
    return SavedModelHandler(str(folder), version="latest", follow_s=EVERY_S, model_version=True)


def answer(asked, loaded):
    [batch] = asked.run_inference([pa.RecordBatch.from_pydict({"x": [1.0, 2.0]})], loaded)
    assert not failures_of(batch)
    [version] = set(batch["model_version"].to_pylist())
    return version, batch["y"].to_pylist()


def wait_for(asked, loaded, version):
    return wait_until(lambda: (found := answer(asked, loaded))[0] == version and found, f"{version} answers")[1]


def test_a_newer_version_takes_over_and_every_batch_says_which_answered(tmp_path):
    save(tmp_path, "v1", 1.0)
    asked = handler(tmp_path)
    loaded = asked.load_model()
    assert answer(asked, loaded) == ("v1", [1.0, 2.0])
    save(tmp_path, "v2", 10.0)
    assert wait_for(asked, loaded, "v2") == [10.0, 20.0]
    save(tmp_path, "v10", 100.0)
    assert wait_for(asked, loaded, "v10") == [100.0, 200.0]


def test_rows_and_their_version_never_disagree_while_it_changes(tmp_path):
    for number in (1, 2):
        save(tmp_path, f"v{number}", float(number))
    hidden = tmp_path.parent / "hidden"
    (tmp_path / "v2").rename(hidden)
    asked = handler(tmp_path)
    loaded = asked.load_model()
    seen = set()
    swap = threading.Timer(0.2, lambda: hidden.rename(tmp_path / "v2"))
    swap.start()

    def is_newest():
        version, values = answer(asked, loaded)
        assert values == [float(version[1:]), 2 * float(version[1:])]
        seen.add(version)
        return "v2" in seen

    wait_until(is_newest, "v2 answers", every_s=0)
    assert seen == {"v1", "v2"}


def test_removing_the_newest_goes_back(tmp_path):
    save(tmp_path, "v1", 1.0)
    save(tmp_path, "v2", 2.0)
    asked = handler(tmp_path)
    loaded = asked.load_model()
    assert answer(asked, loaded)[0] == "v2"
    shutil.rmtree(tmp_path / "v2")
    assert wait_for(asked, loaded, "v1") == [1.0, 2.0]


@pytest.mark.parametrize("unfit", ["half", "other"])
def test_a_version_that_cannot_be_used_is_not(tmp_path, caplog, unfit):
    save(tmp_path, "v1", 1.0)
    asked = handler(tmp_path)
    with caplog.at_level(logging.WARNING):
        loaded = asked.load_model()
        if unfit == "half":
            (tmp_path / "v2").mkdir()
            (tmp_path / "v2" / "saved_model.pb").write_bytes(b"\x08\x01")
        else:
            save(tmp_path, "v2", 2.0, output="z")
        wait_until(lambda: "the newest version is not used" in caplog.text, "the newest version is met")
    assert answer(asked, loaded) == ("v1", [1.0, 2.0])
    shutil.rmtree(tmp_path / "v2")
    save(tmp_path, "v2", 2.0)
    assert wait_for(asked, loaded, "v2") == [2.0, 4.0]


def test_nothing_is_looked_for_once_nobody_has_the_model(tmp_path):
    save(tmp_path, "v1", 1.0)
    before = threading.active_count()
    loaded = handler(tmp_path).load_model()
    assert isinstance(loaded, Followed)
    assert threading.active_count() == before + 1
    del loaded
    gc.collect()
    wait_until(lambda: threading.active_count() <= before, "nobody looks any more")


def test_only_the_latest_can_be_followed(tmp_path):
    save(tmp_path, "v1", 1.0)
    with pytest.raises(ValueError, match="latest"):
        SavedModelHandler(str(tmp_path), version="v1", follow_s=1.0)
