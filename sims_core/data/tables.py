"""Images in the rows of Parquet files, and of what Hugging Face's `save_to_disk` wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sims_core.common.errors import BadInput
from sims_core.common.hostile import only_our_errors, parse_json, read_bounded, regular
from sims_core.common.shown import shown
from sims_core.data.class_folders import SPLITS, in_class_order
from sims_core.data.classes import class_of
from sims_core.data.columns import (
    LABEL_COLUMNS,
    Columns,
    find_columns,
    image_column,
)
from sims_core.data.pictures import BrokenImage
from sims_core.data.raw import RawImage, Source
from sims_core.data.shard_names import missing_parts, shard_gaps

BATCH_ROWS, BATCH_BYTES = 256, 1 << 26
"""At most so many rows, and so many bytes of pictures of the usual size, are read at once."""

Batches = Callable[[Path, Sequence[str]], Iterator[pa.RecordBatch]]


def split_of(path: Path, split: str | None, splits: Sequence[str]) -> str:
    """The chosen split; the first one where none was asked for."""
    if not splits:
        raise BadInput(f"{shown(path)}: has no splits")
    if split is not None and split not in splits:
        raise BadInput(f"`split` {split}: {path} has {', '.join(splits)}")
    return split or splits[0]


def _encoded(values: pa.Array, row: int) -> bytes:
    """The encoded picture of a row; read only now, so that few are copied at a time."""
    value = values[row].as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if not content:
        raise BrokenImage("has no bytes of an image")
    return bytes(content)


def _labels(batch: pa.RecordBatch, columns: Columns) -> list[int | None]:
    if columns.label is None:
        return [None] * len(batch)
    values = batch.column(columns.label).to_pylist()
    if columns.classes is None:
        return list(values)
    numbers = {name: number for number, name in enumerate(columns.classes)}
    return [numbers.get(value) for value in values]


def _rows(batches: Iterator[pa.RecordBatch], columns: Columns, where: str) -> Iterator[RawImage]:
    row = 0
    for batch in batches:
        labels, images = _labels(batch, columns), batch.column(columns.image)
        for number, label in enumerate(labels):
            name = f"{where}: row {row}"
            if label is not None and class_of(label) is None:
                raise BadInput(f"{name}: its class {label} is not an integer from 0")
            yield RawImage(name, partial(_encoded, images, number), label)
            row += 1


def _leaf(schema: pa.Schema, name: str) -> str:
    """What Parquet calls the bytes of a column of pictures."""
    return f"{name}.bytes" if pa.types.is_struct(schema.field(name).type) else name


def _parquet_batches(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Few rows at a time. A value that stands for many rows is in memory once."""
    with pq.ParquetFile(regular(path)) as file:
        schema, sizes, rows = file.schema_arrow, 0, 0
        picture = image_column(schema)
        wanted = [name for name in names if name == picture]
        leaves = [_leaf(schema, name) for name in wanted]
        for group in range(file.metadata.num_row_groups):
            chunk = file.metadata.row_group(group)
            rows = max(rows, chunk.num_rows)
            for number in range(chunk.num_columns):
                if chunk.column(number).path_in_schema in leaves:
                    size = chunk.column(number).total_uncompressed_size
                    sizes = max(sizes, size // max(chunk.num_rows, 1))
    batch = max(1, min(BATCH_ROWS, BATCH_BYTES // max(sizes, 1)))
    with pq.ParquetFile(path, read_dictionary=leaves) as file:
        yield from file.iter_batches(batch, columns=list(names))


def _arrow_batches(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(regular(path))) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            batch.validate(full=True)  # offsets beyond its bytes would be read as they are
            yield batch


def _parquet_schema(path: Path) -> pa.Schema:
    with pq.ParquetFile(regular(path)) as file:
        return file.schema_arrow


def _arrow_schema(path: Path) -> pa.Schema:
    with pa.memory_map(str(regular(path))) as file, pa.ipc.open_stream(file) as stream:
        return stream.schema


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    with only_our_errors(path):
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadInput(f"{path}: unreadable: {told}") from None


def has_pictures(path: Path) -> bool:
    """Whether a Parquet file has a column that can hold pictures; False if it cannot be read."""
    try:
        return image_column(_parquet_schema(path)) is not None
    except (BadInput, pa.ArrowException, OSError):
        return False


class Rows:
    """The images in the rows of several files of one form."""

    def __init__(
        self,
        paths: Sequence[Path],
        schema: Callable[[Path], pa.Schema],
        batches: Batches,
        wanted: bool,
        column: str | None,
    ) -> None:
        self.paths, self.batches, self.schema = tuple(paths), batches, schema
        self.wanted, self.column = wanted, column
        self.columns = self._columns(self.paths[0])
        if self.columns.classes is not None:
            self.columns = self._columns(self.paths[0], self._words(self.columns))

    def _columns(self, path: Path, words: tuple[str, ...] | None = None) -> Columns:
        with _readable(path):
            found = find_columns(self.schema(path), str(path), self.wanted, self.column)
        return found if words is None else Columns(found.image, found.label, words, found.rest)

    def _words(self, columns: Columns) -> tuple[str, ...]:
        """All the classes that a column of words has, in order."""
        found: set[str] = set()
        for path in self.paths:
            with _readable(path):
                for batch in self.batches(path, [str(columns.label)]):
                    found |= {v for v in batch.column(columns.label).unique().to_pylist() if v}
        return tuple(in_class_order([*found]))

    def read(self) -> Iterator[RawImage]:
        """Every row.

        Raises:
            BadInput: a file is damaged, or unlike the first.
        """
        for path in self.paths:
            with _readable(path):
                columns = self._columns(path, self.columns.classes)
                names = [name for name in (columns.image, columns.label) if name]
                yield from _rows(self.batches(path, names), columns, str(path))

    @property
    def notes(self) -> list[str]:
        """What of the columns is not imported, and which one gives the classes."""
        rest, label = self.columns.rest, self.columns.label
        notes = [f"columns that are not imported: {shown(', '.join(rest))}"] if rest else []
        return notes if label is None else [f"classes: the column {shown(label)}", *notes]


def parquet_images(paths: Sequence[Path]) -> Iterator[RawImage]:
    """Rows of Parquet files with encoded images, a few at a time.

    Raises:
        BadInput: a file is no Parquet file, is damaged, or has no such column.
    """
    return Rows(paths, _parquet_schema, _parquet_batches, True, None).read()


def open_parquet(path: Path, split: str | None, wanted: bool, column: str | None) -> Source:
    """One Parquet file, taken whole."""
    if split is not None:
        raise BadInput(f"`split` {split}: {path} is one file, which is imported whole")
    return _parquet_source([path], None, wanted, column)


def _parquet_source(
    paths: Sequence[Path], split: str | None, wanted: bool, column: str | None
) -> Source:
    rows = Rows(paths, _parquet_schema, _parquet_batches, wanted, column)
    return Source(
        "parquet",
        rows.paths,
        rows.read,
        split,
        classes=rows.columns.classes or (),
        label_column=column,
        notes=rows.notes,
        missing=missing_parts(paths),
    )


def choose_split(
    files: Sequence[Path], folder: Path, split: str | None
) -> tuple[str | None, list[Path]]:
    """The split, by how files' names begin, and its files; (None, all) where they name none."""
    splits = [name for name in SPLITS if any(file.name.startswith(name) for file in files)]
    if not splits:  # Train-0.parquet, testing.parquet
        words = [re.match(r"[A-Za-z]+", file.name) for file in files]
        found = {word[0] for word in words if word}
        splits = sorted(name for name in found if name.lower().startswith(SPLITS))
    chosen = split_of(folder, split, splits) if splits or split else None
    return chosen, [file for file in files if file.name.startswith(chosen or "")]


def open_parquet_folder(
    folder: Path, files: Sequence[Path], split: str | None, wanted: bool, column: str | None
) -> Source:
    """Parquet files of a folder: those of one split, which their names begin with."""
    chosen, paths = choose_split(files, folder, split)
    source = _parquet_source(paths, chosen, wanted, column)
    for file in files:
        if file not in paths:
            source.left_out.add("a file of another split", file.relative_to(folder))
    source.notes.extend(shard_gaps(paths))
    return source


def _object(path: Path) -> dict[str, Any]:
    value = parse_json(read_bounded(path), path)
    if not isinstance(value, dict):
        raise BadInput(f"{shown(path)}: unreadable: not a JSON object")
    return value


def _feature_names(folder: Path, label: str | None) -> tuple[str, ...]:
    """Names of the classes of a column, as dataset_info.json has them."""
    features = _object(folder / "dataset_info.json").get("features")
    feature = features.get(label) if isinstance(features, dict) else None
    names = feature.get("names") if isinstance(feature, dict) else None
    if names is None:
        return ()
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
        raise BadInput(f"{shown(folder)}/dataset_info.json: names of classes must be words")
    return tuple(names)


def open_hugging_face(folder: Path, split: str | None, wanted: bool, column: str | None) -> Source:
    """What `save_to_disk` of Hugging Face's library wrote: a data set, or a folder for each split.

    A file's name in its state is only taken if it lies in the folder itself.
    """
    chosen = None
    if (folder / "dataset_dict.json").is_file():
        splits = _object(folder / "dataset_dict.json").get("splits")
        splits = splits if isinstance(splits, list) else []
        chosen = split_of(folder, split, [str(name) for name in splits])
        if PurePosixPath(chosen).name != chosen or chosen == "..":
            raise BadInput(f"{shown(folder)}/dataset_dict.json: {chosen} is no name of a folder")
        folder = folder / chosen
    elif split is not None:
        raise BadInput(f"`split` {split}: {folder} has no splits")
    state = _object(folder / "state.json")
    entries = state.get("_data_files")
    names = [
        str(entry.get("filename", "")) if isinstance(entry, dict) else ""
        for entry in (entries if isinstance(entries, list) else [])
    ]
    if not names or any(PurePosixPath(name).name != name for name in names):
        raise BadInput(f"{folder}/state.json: names no data files of its folder")
    if state.get("_indices_files"):
        raise BadInput(f"{folder}: is a selection of rows; save it by flatten_indices() first")
    paths = [regular(folder / name) for name in names]
    rows = Rows(paths, _arrow_schema, _arrow_batches, wanted, column)
    words = rows.columns.classes
    classes = words or _feature_names(folder, rows.columns.label or _usual_label(folder))
    return Source(
        "hugging_face",
        tuple(paths),
        rows.read,
        chosen,
        classes=classes,
        label_column=column,
        notes=rows.notes,
        missing=missing_parts(paths),
    )


def _usual_label(folder: Path) -> str | None:
    features = _object(folder / "dataset_info.json").get("features")
    names = features if isinstance(features, dict) else {}
    return next((name for name in LABEL_COLUMNS if name in names), None)
