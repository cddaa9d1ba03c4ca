// What a cluster is called: the words that set its texts apart from the others, in a language that most of them have.

const WORDS = 3; // of a name
const READ = 300; // characters of a text; more say little more
const LEAST = { han: 2, other: 3 }; // characters of a word that says something

// Words that say nothing, and that tell an English text from one in another language with the same letters.
const ENGLISH = new Set(
  "the and are were is have had not you your for from with this that these they their what how who why when where would can does did but our its his she than then there been about into out any".split(" "),
);
const CHINESE = new Set("什么 怎么 怎么样 怎样 如何 哪里 我们 你们 他们 可以 这个 那个 这些 那些 没有 就是 因为 所以 但是 如果 一个 已经 还是 以及 自己".split(" "));

const HAN = /\p{Script=Han}/u;

// texts, the number of each one's cluster and its distance to the mean, and the clusters: with a name, and with the
// most central of the texts that it was made of.
export function named(texts, { labels, distances, groups }, page) {
  const segmenter = new Intl.Segmenter(page, { granularity: "word" });
  const words = texts.map((text) => wordsOf(segmenter, text.slice(0, READ)));
  const languages = texts.map((text, index) => languageOf(text, words[index]));
  const everywhere = counted(words);
  return groups.map(({ size }, group) => {
    const all = texts.map((_, index) => index).filter((index) => labels[index] === group);
    const language = mostOf(all.map((index) => languages[index]), page);
    const members = all.filter((index) => languages[index] === language);
    const central = members.reduce((best, index) => (distances[index] < distances[best] ? index : best));
    const inside = counted(members.map((index) => words[index]));
    return { size, central, name: distinctive(inside, everywhere, members.length, texts.length) };
  });
}

// Lower-case word to the word as it is written.
function wordsOf(segmenter, text) {
  const found = new Map();
  for (const { segment, isWordLike } of segmenter.segment(text)) {
    const word = segment.toLowerCase();
    const least = HAN.test(word) ? LEAST.han : LEAST.other;
    if (isWordLike && word.length >= least && /\p{L}/u.test(word) && !CHINESE.has(word) && !found.has(word)) found.set(word, segment);
  }
  return found;
}

// By its letters, which is enough to tell one that the page's reader can read; "en" by its small words.
function languageOf(text, words) {
  for (const script of ["Hiragana", "Katakana", "Hangul", "Cyrillic", "Arabic", "Hebrew", "Thai", "Devanagari", "Greek"])
    if (new RegExp(`\\p{Script=${script}}`, "u").test(text)) return script;
  if (HAN.test(text)) return "zh";
  return [...words.keys()].some((word) => ENGLISH.has(word)) ? "en" : "Latin";
}

// What more than half are, else the page's language where there is one in it, else what is most frequent.
function mostOf(languages, page) {
  const counts = new Map();
  for (const one of languages) counts.set(one, (counts.get(one) ?? 0) + 1);
  const [first, count] = [...counts].reduce((best, one) => (one[1] > best[1] ? one : best));
  return count * 2 <= languages.length && counts.has(page) ? page : first;
}

// In how many texts each word is, and how it is written there.
function counted(lists) {
  const found = new Map();
  for (const list of lists)
    for (const [word, written] of list) {
      const one = found.get(word) ?? { word, written, count: 0 };
      one.count++;
      found.set(word, one);
    }
  return found;
}

// The words with the largest share of the divergence of these texts from all.
function distinctive(inside, everywhere, members, n) {
  const weight = ({ word, count }) => (count / members) * Math.log(((count / members) * n) / everywhere.get(word).count);
  const sorted = [...inside.values()]
    .filter(({ word }) => !ENGLISH.has(word))
    .map((one) => ({ ...one, weight: weight(one) }))
    .sort((a, b) => b.weight - a.weight || b.word.length - a.word.length);
  const chosen = [];
  for (const { word, written } of sorted) {
    const stem = word.slice(0, 4);
    if (!chosen.some(({ word: other }) => other.startsWith(stem))) chosen.push({ word, written });
    if (chosen.length === WORDS) break;
  }
  return chosen.map(({ written }) => written).join(HAN.test(chosen[0]?.word) ? "、" : ", ");
}
