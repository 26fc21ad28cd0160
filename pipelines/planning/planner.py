"""Checks a config against what it names: files, model, columns. All mistakes show here, before anything runs.

Needs neither TensorFlow nor, for local paths, Beam.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pyarrow as pa

from inference.columns.binding import bind
from inference.columns.bound import arrow_type, column_names, did_you_mean
from inference.errors import BindingError, OutputError
from inference.handler_base import VERSION_COLUMN
from inference.saved_model.files import LATEST
from inference.tensors import output_type
from model import rows
from model.specs import Signature
from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.config.files import FileSource
from pipelines.config.messages import MessageSource
from pipelines.config.model import SavedModelConfig
from pipelines.config.registry import SourceConfig, source_encodings
from pipelines.config.run import RunConfig
from pipelines.connectors.files import source_files
from pipelines.connectors.registry import bounded_source
from pipelines.formats import FormatError, detection, reader_class, writer_class
from pipelines.plan import KEY, Extent, OutputColumn, Plan, PlannedModel
from pipelines.planning import fed_inputs, message_schema, output_places, source_columns, stores
from pipelines.planning import model as models
from pipelines.planning.decoded_types import read_spec
from pipelines.planning.output_names import ALL_COLUMNS, same_names, with_all_columns, without_rows
from pipelines.planning.source_columns import Columns
from pipelines.planning.source_content import unknown_encodings, with_content
from pipelines.rows.origin import text_of
from pipelines.storage import FileInfo

_SOURCE_OPTIONS = ("column_names", "decimal", "delimiter", "encoding", "null_values", "quote", "trim")


_HINTED = 20
"""Unknown columns that get a hint at what was meant: finding one looks at all names."""


def make_plan(
    config: RunConfig, *, offline: bool = False, source_may_be_gone: bool = False, writes_here: bool = True
) -> Plan:
    """Holds a config against the files and the model it names.

    Args:
      config: the config.
      offline: do not look at sources on other machines; their columns are presumed to be right.
      source_may_be_gone: presume its columns too if the source cannot be read.
      writes_here: whether this machine writes output and dead letters, and needs access to them.

    Raises:
      ConfigError: with every mistake found, each with its place in the config.
    """
    unseen = ["source"] if offline or source_may_be_gone else []
    unseen += ["output", "dead_letters"] if offline or not writes_here else []
    stores.require(config, but=unseen)
    problems: list[str] = []
    model = models.find(config.model, problems, offline=offline)
    source_problems: list[str] = []
    config = with_content(config, model)
    options = source_options(config.source)
    extent: Extent | None = None
    if isinstance(config.source, FileSource):
        found, columns, notes = look_at_source(config.source, source_problems, offline)
        notes += output_places.reads_its_output(config)
    elif isinstance(config.source, MessageSource):
        found, notes = [], []
        schema, described = message_schema.look_at(config.source, problems)
        columns = Columns(schema)
        options |= described
    elif config.is_batch:
        found = []
        columns, extent, notes = _look_at_contents(config.source, source_problems, offline)
    else:
        # What messages have shows only when they come.
        found, columns, notes = [], Columns(pa.schema([])), []
    if source_may_be_gone and source_problems:
        found, columns = [], Columns(pa.schema([]))
        extent = None
        notes = ["the source cannot be read any more; its columns are presumed"]
    else:
        problems += source_problems
    notes += models.exposed(config.model) + _exposed_passwords(config)
    problems += output_places.unwritable(config)
    problems += output_places.replaces_what_is_read(config, found, model)
    if model is None or columns.schema is None:
        if columns.schema is not None and len(columns.schema):
            problems += unknown_key(config.source, columns.schema)
        raise ConfigError(problems)
    return replace(_fit(config, found, columns, model, notes, options, problems), extent=extent)


def _look_at_contents(source: SourceConfig, problems: list[str], offline: bool) -> tuple[Columns, Extent, list[str]]:
    """The columns of a source that is not files, and how much it is, as it says itself."""
    if offline:
        return Columns(pa.schema([])), Extent(0, 0), ["the source was not looked at"]
    try:
        contents = bounded_source(source).look_at()
    except ConfigError as error:
        problems += error.problems
        return Columns(None), Extent(0, 0), []
    if contents is None:
        return Columns(pa.schema([])), Extent(0, 0), []
    return Columns(contents.schema), contents.extent, contents.notes


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
    model: PlannedModel,
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
    problems += unknown_key(source, visible)
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


def unknown_key(source: SourceConfig, schema: pa.Schema) -> list[str]:
    """Lists what is wrong with the key of a source, one line or none."""
    key = source.key
    if key is None or key in schema.names:
        return []
    return [f"source.key: no column '{key}' in the source{did_you_mean(key, schema.names)}"]


def look_at_source(source: FileSource, problems: list[str], offline: bool) -> tuple[list[FileInfo], Columns, list[str]]:
    """Finds the files of a source and their columns. Unreadable files among others become dead letters.

    Args:
      source: the source.
      problems: gets one line for each mistake.
      offline: do not look at files on other machines.

    Returns:
      The files, their columns, and what a person should know, one line each.
    """
    patterns = [source.path] if isinstance(source.path, str) else list(source.path)
    if offline and any(storage.is_remote(pattern) for pattern in patterns):
        return [FileInfo(pattern, 0) for pattern in patterns], Columns(pa.schema([])), ["the source was not looked at"]
    found = source_files.find(patterns)
    problems += found.problems
    problems += output_places.half_published(found.files)
    closed = [f.path for f in found.files if not storage.is_remote(f.path) and not os.access(f.path, os.R_OK)]
    problems += [
        f"source.path: {text_of(path)} cannot be read: permission denied; check its access rights" for path in closed
    ]
    refusals = stores.unreadable(found.files)
    if refusals:
        problems += refusals
        return found.files, Columns(None), found.notes
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
    """Returns the format's own settings."""
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
    return follows and not config.is_batch


def _typed(
    chosen: list[tuple[str, str]], read: pa.Schema, signature: Signature, config: RunConfig
) -> tuple[OutputColumn, ...]:
    """The columns to write with the types that the output's format gives them."""
    writer = writer_class(config.output.row_format)
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
