// Reads arrays of a store with zarrita and leaves the bytes of each: `node read_arrays.mjs STORE
// FOLDER PATH...`. Prints, by path, data type and shape, or what zarrita says it cannot do.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import FileSystemStore from "@zarrita/storage/fs";
import * as zarr from "zarrita";

const [store, folder, ...names] = process.argv.slice(2);
const root = zarr.root(new FileSystemStore(store));

async function read(name, index) {
  const array = await zarr.open.v3(root.resolve(name), { kind: "array" });
  const { data, shape } = await zarr.get(array);
  const values = data.buffer ? data : Uint8Array.from(data, Number); // bool has no buffer
  const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  await writeFile(path.join(folder, `${index}.bin`), bytes);
  return { dtype: array.dtype, shape, attributes: array.attrs };
}

await mkdir(folder, { recursive: true });
const found = {};
for (const [index, name] of names.entries()) {
  try {
    found[name] = await read(name, index);
  } catch (error) {
    found[name] = { error: String(error) };
  }
}
console.log(JSON.stringify(found));
