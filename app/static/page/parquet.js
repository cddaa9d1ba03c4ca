// Parquet files, read by a library that is fetched once somebody opens one.

import { t } from "./language.js";

// File to {columns, rows, texts, total}: at most `most` rows of `total`; `texts` are the columns that hold strings.
export async function readParquet(file, most) {
  const { compressors, parquetMetadataAsync, parquetReadObjects, parquetSchema } = await import("./vendor/hyparquet/parquet.js");
  const buffer = { byteLength: file.size, slice: (start, end) => file.slice(start, end).arrayBuffer() };
  let metadata, records;
  try {
    metadata = await parquetMetadataAsync(buffer);
    records = await parquetReadObjects({ file: buffer, metadata, compressors, rowEnd: most });
  } catch (error) {
    throw new Error(t("find.bad.parquet", { said: error.message }));
  }
  const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  const texts = columns.filter((name) => records.some((record) => record[name]) && records.every((record) => isText(record[name])));
  if (records.length && !texts.length) throw new Error(t("find.notext"));
  return {
    columns,
    rows: records.map((record) => columns.map((name) => written(record[name]))),
    texts: texts.map((name) => columns.indexOf(name)),
    total: Number(metadata.num_rows),
  };
}

// Bytes that are no text are decoded to replacement characters.
const isText = (value) => value === null || value === undefined || (typeof value === "string" && !value.includes("\ufffd"));

function written(value) {
  if (value === null || value === undefined) return "";
  if (value instanceof Date) return value.toISOString();
  if (typeof value !== "object") return String(value);
  return JSON.stringify(value, (_, inner) => (typeof inner === "bigint" ? String(inner) : inner));
}
