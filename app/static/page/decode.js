// The bytes of a text file to text, whatever encoding they are in.

import { t } from "./language.js";

const MOSTLY = 0.8;

// {text, guess}: `guess` is the encoding where the file does not say it and is no UTF-8, else null.
export function decode(bytes) {
  const mark = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : null;
  if (mark) return { text: new TextDecoder(mark).decode(bytes), guess: null };
  if (bytes.subarray(0, 65_536).includes(0)) throw new Error(t("find.binary"));
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), guess: null };
  } catch {
    const guess = isChinese(bytes) ? "gb18030" : "windows-1252";
    return { text: new TextDecoder(guess).decode(bytes), guess };
  }
}

// Common Chinese characters are pairs of bytes in these ranges (GB 2312); letters with accents stand alone or in
// other ranges.
function isChinese(bytes) {
  let [high, paired] = [0, 0];
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] < 0x80) continue;
    high++;
    if (bytes[at] < 0xa1 || bytes[at] > 0xd7 || !(bytes[at + 1] >= 0xa1)) continue;
    [high, paired, at] = [high + 1, paired + 2, at + 1];
  }
  return paired / high > MOSTLY;
}
