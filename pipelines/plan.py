"""A config held against what it names: files, model, columns. All mistakes show here, before anything runs.

Needs neither TensorFlow nor, for local paths, Beam.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from inference.binding import Binding, arrow_type, bind, column_names, did_you_mean
from inference.columnar import VERSION_COLUMN
from inference.errors import BindingError, OutputError
from inference.model_files import LATEST
from inference.tensors import output_type
from model import rows
from model.specs import Signature
from pipelines import fed_inputs, files, message_files, models, output_places, source_columns, source_files
from pipelines.config import ConfigError, FileSource, RunConfig
from pipelines.decoded_types import read_spec
from pipelines.files import FileInfo
from pipelines.formats import FormatError, ReadSpec, detection, reader_class, writer_class
from pipelines.model_config import SavedModelConfig
from pipelines.models import Model
from pipelines.output_names import ALL_COLUMNS, same_names, with_all_columns, without_rows
from pipelines.rows import text_of
from pipelines.source_columns import Columns
from pipelines.source_config import MessageSource, SourceConfig, source_encodings
from pipelines.source_content import unknown_encodings, with_content

KEY = "key"
"""Name of the output column that identifies a row where the source has no key column."""

_SOURCE_OPTIONS = ("column_names", "decimal", "delimiter", "encoding", "null_values", "quote", "trim")
_HINTED = 20
"""Unknown columns that get a hint at what was meant: finding one looks at all names."""


@dataclass(frozen=True)
class OutputColumn:
    """A column to write.

    Attributes:
      name: its name.
      type: its type in the file.
      origin: "key", "source", "model", or "version" for the model's.
      planned: of a source column, the type that the run was planned with; files whose column has another type give
        only the values that are the same in this one.
    """

    name: str
    type: pa.DataType
    origin: str
    planned: pa.DataType | None = None


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
      config: the config.
      files: what to read.
      model: the model, found.
      source_schema: the columns of the files, each with a type for all of them.
      binding: which column feeds which input.
      read: the columns to read, and how.
      output: the columns to write.
      run_id: names what belongs to this run alone.
      notes: what a person should know, one line each.
    """

    config: RunConfig
    files: tuple[FileInfo, ...]
    model: Model
    source_schema: pa.Schema
    binding: Binding
    read: ReadSpec
    output: tuple[OutputColumn, ...]
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    notes: tuple[str, ...] = ()

    @property
    def output_schema(self) -> pa.Schema:
        """The schema of the files written."""
        return pa.schema([(column.name, column.type) for column in self.output])

    @property
    def signature(self) -> Signature:
        """The model's signature."""
        return self.model.signature

    @property
    def model_outputs(self) -> tuple[str, ...]:
        """The model's outputs that are written."""
        return tuple(column.name for column in self.output if column.origin == "model")

    @property
    def tells_version(self) -> bool:
        """Whether the version that predicted a row is written beside it."""
        return any(column.origin == "version" for column in self.output)

    @property
    def key_column(self) -> str | None:
        """The source column that is the key, if there is one."""
        return self.config.source.key


def make_plan(config: RunConfig, *, offline: bool = False, source_may_be_gone: bool = False) -> Plan:
    """Holds a config against the files and the model it names.

    Args:
      config: the config.
      offline: do not look at sources on other machines; their columns are presumed to be right.
      source_may_be_gone: presume its columns too if the source cannot be read.

    Raises:
      ConfigError: with every mistake found, each with its place in the config.
    """
    problems: list[str] = []
    model = models.find(config.model, problems, offline=offline)
    source_problems: list[str] = []
    config = with_content(config, model)
    options = source_options(config.source)
    if isinstance(config.source, FileSource):
        found, columns, notes = _look_at_source(config.source, source_problems, offline)
        notes += output_places.reads_its_output(config)
    elif isinstance(config.source, MessageSource):
        found, notes = [], []
        schema, described = message_files.look_at(config.source, problems)
        columns = Columns(schema)
        options |= described
    else:
        # What messages have shows only when they come.
        found, columns, notes = [], Columns(pa.schema([])), []
    if source_may_be_gone and source_problems:
        found, columns = [], Columns(pa.schema([]))
        notes = ["the source cannot be read any more; its columns are presumed"]
    else:
        problems += source_problems
    notes += models.exposed(config.model) + _exposed_passwords(config)
    problems += output_places.unwritable(config)
    problems += output_places.replaces_what_is_read(config, found, model)
    if model is None or columns.schema is None:
        if columns.schema is not None and len(columns.schema):
            problems += _unknown_key(config.source, columns.schema)
        raise ConfigError(problems)
    return _fit(config, found, columns, model, notes, options, problems)


def _exposed_passwords(config: RunConfig) -> list[str]:
    parts = {"source": config.source, "output": config.output, "dead_letters": config.dead_letters}
    return [
        f"warning: {where}.security: the password goes to {part.bootstrap_servers} unencrypted, others on the way can "
        "read it: use sasl_ssl"
        for where, part in parts.items()
        if part.type == "kafka" and part.security.exposes(part.bootstrap_servers)
    ]


def _fit(
    config: RunConfig,
    found: list[FileInfo],
    columns: Columns,
    model: Model,
    notes: list[str],
    options: dict[str, Any],
    problems: list[str],
) -> Plan:
    """The plan, once source and model are known one by one: do they fit together, and the output?"""
    source, signature = config.source, model.signature
    schema = columns.schema if columns.schema else _presumed(config, signature)
    visible = schema
    wants_record = source.reads == "tfrecord" and signature.examples_input is not None
    if wants_record:
        visible = schema.append(pa.field(str(signature.examples_input), pa.binary()))
    wrong = detection.wrong_delimiter(schema.names, options) if source.reads == "csv" else None
    try:
        problems += unknown_encodings(source, visible)
        binding = bind(signature, visible, source.columns, source.defaults, source_encodings(source))
    except BindingError as error:
        binding = None
        problems += [wrong] if wrong is not None else error.problems + fed_inputs.hints(source.reads, found)
    problems += _unknown_key(source, visible)
    output = _output_columns(config, visible, signature, problems)
    if binding is not None:
        fed, unfed = fed_inputs.unfed(binding, visible.names)
        notes += fed
        if unfed:
            problems += [wrong] if wrong is not None else unfed + fed_inputs.hints(source.reads, found)
        if columns.schema:
            problems += fed_inputs.not_lists(binding, source.reads, source_options(source), found, schema)
        passed = [name for name, origin in output if origin == "source"]
        differences = source_columns.differences(columns, binding, source.key, passed, source.reads)
        notes += differences.notes
        problems += differences.problems
    if problems or binding is None:
        raise ConfigError(problems)
    record_signature = signature if wants_record else None
    read = read_spec(config, visible, binding, output, options, record_signature, columns.partitioned)
    written = _typed(output, read.columns, signature, config)
    notes = [*notes, *(f"model: {line}" for line in model.notes)]
    return Plan(config, tuple(found), model, schema, binding, read, written, notes=tuple(notes))


def _unknown_key(source: SourceConfig, schema: pa.Schema) -> list[str]:
    key = source.key
    if key is None or key in schema.names:
        return []
    return [f"source.key: no column '{key}' in the source{did_you_mean(key, schema.names)}"]


def _look_at_source(
    source: FileSource, problems: list[str], offline: bool
) -> tuple[list[FileInfo], Columns, list[str]]:
    """The files and their columns. Unreadable files among others become dead letters."""
    patterns = [source.path] if isinstance(source.path, str) else list(source.path)
    if offline and any(files.is_remote(pattern) for pattern in patterns):
        return [FileInfo(pattern, 0) for pattern in patterns], Columns(pa.schema([])), ["the source was not looked at"]
    found = source_files.find(patterns)
    problems += found.problems
    problems += output_places.half_published(found.files)
    closed = [f.path for f in found.files if not files.is_remote(f.path) and not os.access(f.path, os.R_OK)]
    problems += [
        f"source.path: {text_of(path)} cannot be read: permission denied; check its access rights" for path in closed
    ]
    reader, options = reader_class(source.reads), source_options(source)
    refused = set(closed)
    readable = [file for file in found.files if file.path not in refused]
    columns = source_columns.look_at(readable, lambda path: reader.schema(path, options), source.reads, source.key)
    if readable and columns.schema is None:
        problems += fed_inputs.hints(source.format, readable) or [
            f"source: no file can be read as {source.format}: {columns.refused[0]}; check source.format"
        ]
    notes = [*found.notes, *source_columns.notes_on(columns, source.reads)]
    if readable and columns.schema is not None and not len(columns.schema):
        notes.append("the source is empty")
    return found.files, columns, notes


def _presumed(config: RunConfig, signature: Signature) -> pa.Schema:
    """The columns that a source without a single byte would have, were it not empty."""
    source = config.source
    types = {
        name: arrow_type(spec.dtype)
        for spec in signature.inputs
        for name in column_names(source.columns.get(spec.name, spec.name))
    }
    outputs = {spec.name for spec in signature.outputs} | {KEY, VERSION_COLUMN}
    listed_names = [name for name in config.output.columns or [] if name != ALL_COLUMNS]
    others = [*([source.key] if source.key else []), *listed_names]
    types.update({name: pa.string() for name in others if name not in types and name not in outputs})
    listed = source_options(source).get("column_names")
    if listed and not isinstance(source, FileSource):
        types = {name: types.get(name) for name in listed}
    return pa.schema([(name, type or pa.string()) for name, type in types.items()])


def source_options(source: SourceConfig) -> dict[str, Any]:
    """The format's own settings."""
    options = {name: getattr(source, name, None) for name in _SOURCE_OPTIONS}
    return {name: value for name, value in options.items() if value is not None}


def _output_columns(
    config: RunConfig, schema: pa.Schema, signature: Signature, problems: list[str]
) -> list[tuple[str, str]]:
    """(name, origin) of each column to write."""
    outputs = [spec.name for spec in signature.outputs]
    key = config.source.key
    by_default = [key or KEY, *outputs, *([VERSION_COLUMN] if _changes_models(config) else [])]
    by_row = [spec.name for spec in signature.outputs if rows.is_by_row(spec, signature)]
    names = with_all_columns(config.output.columns or list(dict.fromkeys(by_default)), schema, by_row)
    problems += without_rows(config, signature, names, by_default)
    problems += same_names(config, schema, outputs, names, KEY, tells_version=_changes_models(config))
    # Of a wide table, names are listed once.
    source, modelled = dict.fromkeys(schema.names), set(outputs)
    chosen: list[tuple[str, str]] = []
    unknown = 0
    for name in names:
        if name in modelled:
            chosen.append((name, "model"))
        elif name == (key or KEY):
            chosen.append((name, "key"))
        elif name in source:
            chosen.append((name, "source"))
        elif name == VERSION_COLUMN:
            chosen.append((name, "version"))
        else:
            unknown += 1
            known = [*outputs, key or KEY, *source, VERSION_COLUMN] if unknown <= _HINTED else []
            problems.append(
                f"output.columns: '{name}' is neither a source column nor an output of the model"
                f"{did_you_mean(name, known)} (outputs: {', '.join(outputs[:20])})"
            )
    if len(set(names)) < len(names):
        problems.append("output.columns: a column is named twice")
    return chosen


def _changes_models(config: RunConfig) -> bool:
    """Whether rows of one run may be predicted by different versions."""
    follows = isinstance(config.model, SavedModelConfig) and config.model.version == LATEST
    return follows and not isinstance(config.source, FileSource)


def _typed(
    chosen: list[tuple[str, str]], read: pa.Schema, signature: Signature, config: RunConfig
) -> tuple[OutputColumn, ...]:
    """The columns to write with the types that the output's format gives them."""
    writer = writer_class(config.output.format)
    outputs = {spec.name: spec for spec in signature.outputs}
    problems: list[str] = []
    columns = []
    for name, origin in chosen:
        planned = None
        try:
            if origin == "model":
                type = output_type(outputs[name])
            elif origin == "version" or (origin == "key" and not config.source.key):
                type = pa.string()
            else:
                type = planned = read.field(name).type
            columns.append(OutputColumn(name, writer.output_type(type), origin, planned))
        except (FormatError, OutputError) as error:
            problems.append(f"output.columns: '{name}': {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(columns)
