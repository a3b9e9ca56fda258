"""Files of a teacher's shards that are no shards themselves: whole and compared, or a piece."""

from contextlib import closing
from hashlib import sha256
from typing import Any

from numpy.typing import NDArray

from pipeline.teacher_store.layout import StoreLayout
from pipeline.teacher_store.manifest import Manifest
from pipeline.teacher_store.stored_file import StoredFile
from store_schemas.chunks import RESTORE, decode_plain_chunk
from store_schemas.errors import CorruptError


class ManifestFiles:
    """What the manifest says of each file of a teacher's shards."""

    def __init__(self, layout: StoreLayout, manifest: Manifest) -> None:
        self._folder = layout.folder
        self._specs = layout.shard_specs
        self._manifest = manifest
        self._columns = {name: column for column, name in enumerate(self._specs)}

    def name_and_bytes(self, array: str, shard: int) -> tuple[str, int]:
        """Return name and length of the file of an array's shard."""
        length = int(self._manifest.lengths[shard, self._columns[array]])
        return self._specs[array].chunk_name(shard), length

    def read_rows(self, array: str, shard: int) -> NDArray[Any]:
        """Return a shard's rows of an array that is not sharded, compared with the manifest.

        Raises:
            CorruptError: missing, torn or altered.
        """
        name, num_bytes = self.name_and_bytes(array, shard)
        try:
            data = self._folder.read(name, num_bytes)
        except FileNotFoundError:
            raise CorruptError(f"{name} is missing{RESTORE}") from None
        rows = decode_plain_chunk(self._specs[array], shard, data)
        if sha256(data).digest() != self._manifest.sha256[shard, self._columns[array]].tobytes():
            raise CorruptError(f"{name} must have the sha256 of the manifest{RESTORE}")
        return rows

    def read_piece(self, array: str, shard: int, place: int, length: int) -> bytes:
        """Return the bytes of one view of an array that is not sharded, without comparing them.

        Args:
            place: Of the view in the shard.
            length: Of every view.

        Raises:
            CorruptError: missing or torn.
        """
        file = StoredFile.open(self._folder, *self.name_and_bytes(array, shard))
        with closing(file):
            return file.read(length, place * length)
