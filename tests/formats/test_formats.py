"""The promises of files: names of metrics, outcomes and states, tables with versions and the names of their fields."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acr_ray.formats import tables
from acr_ray.formats.metrics import Metric, MetricKey
from acr_ray.formats.states import Outcome, RunState, TrialStatus
from acr_ray.settings import UserError
from acr_ray.storage.tables import check_table_version, table_metadata
from acr_ray.tracking.names import fit_key


def test_one_metric_has_one_key_and_the_spellings_that_files_promise():
    key = MetricKey(Metric.CERTIFIED_ACCURACY, 0.5)
    assert (key.option, key.tracked, key.column) == (
        "certified_accuracy@0.5",
        "certified_accuracy.0.5",
        "certified_accuracy_0.5",
    )
    assert fit_key(key.option) == key.tracked, "a search's numbers and a certification's have one name in MLflow"
    assert MetricKey(Metric.ACR).option == MetricKey(Metric.ACR).tracked == "acr"
    assert MetricKey(Metric.CERTIFIED_ACCURACY, 0.0).tracked == "certified_accuracy.0"


def test_what_files_say_of_outcomes_and_states():
    assert [*Outcome] == ["certified", "abstained", "stopped_wrong"]
    assert [*TrialStatus] == ["running", "finished", "stopped", "failed", "lost"]
    assert [*RunState] == ["starting", "running", "stop", "stopped"]
    written = json.loads(json.dumps({"status": TrialStatus.LOST}))
    assert written == {"status": "lost"} and f"{Outcome.ABSTAINED}" == "abstained"
    assert pa.array([Outcome.CERTIFIED]).to_pylist() == ["certified"]


def test_the_columns_of_certificates_are_frozen():
    promised = "image idx label predicted outcome count_top count_label n n0 counts sigma alpha seed bound dtype block"
    assert tables.CERTIFICATES.names[:19] == [*promised.split(), "model_sha256", "settings_sha256", "seconds"]


def read_back(**about):
    table = tables.described(pa.table({"image": ["a"]}, pa.schema([("image", pa.string())])), 3, about)
    return pq.read_table(io.BytesIO(tables.parquet_bytes(table)))


def test_a_table_says_its_version_and_its_fields():
    table = read_back(**{tables.FIELDS: ["training.m"], tables.SIGMA: 0.25})
    assert table.to_pydict() == {"image": ["a"]}
    check_table_version(table, 3, "here")
    with pytest.raises(UserError, match="here: schema version 3, this release reads 1"):
        check_table_version(table, 1, "here")
    assert table_metadata(table, tables.FIELDS, "here") == ["training.m"]
    assert table_metadata(table, tables.SIGMA, "here") == 0.25
    assert table_metadata(table, tables.METRICS, "here") is None


@pytest.mark.parametrize("stored", [b"{", b"[1,", b"\xff", b'{"a": 1, "a": 2}', b"1" * (2**20 + 1)])
def test_metadata_that_are_damaged_or_too_long_are_refused(stored):
    table = pa.table({"image": ["a"]}).replace_schema_metadata({tables.SUMMARY.encode(): stored})
    with pytest.raises(UserError, match="here: its acr_ray.summary"):
        table_metadata(table, tables.SUMMARY, "here")


def test_a_table_made_elsewhere_need_not_say_a_version():
    check_table_version(pa.table({"image": ["a"]}), 1, "here")
