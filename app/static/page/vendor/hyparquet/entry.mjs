export { parquetMetadataAsync, parquetReadObjects, parquetSchema, cachedAsyncBuffer } from "hyparquet";
import { decompress } from "fzstd";
import { decompressBrotli } from "hyparquet-compressors/src/brotli.js";
import { gunzip } from "hyparquet-compressors/src/gzip.js";
import { decompressLz4, decompressLz4Raw } from "hyparquet-compressors/src/lz4.js";
// Snappy is hyparquet's own: hyparquet-compressors has it in WebAssembly, which the page's policy forbids.
export const compressors = {
  GZIP: (input, length) => gunzip(input, new Uint8Array(length)),
  BROTLI: decompressBrotli,
  ZSTD: (input, length) => decompress(input, new Uint8Array(length)),
  LZ4: decompressLz4,
  LZ4_RAW: decompressLz4Raw,
};
