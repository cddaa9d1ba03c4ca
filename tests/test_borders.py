"""Where texts may be cut: sentences in many scripts, paragraphs, sections, and texts made to be slow."""

import random
import re

import pytest

from app.engine.borders import Level, borders

# A "|" stands where a sentence begins.
SENTENCES = {
    "abbreviations": "See e.g. Fig. 3, i.e. the rest, cf. No. 7 or p. 12 here. |Dr. Smith met Mr. Jones.",
    "initials": "The U.S. Army and J. R. R. Tolkien came. |All left.",
    "quotes": 'He said "Stop!" |Then he left. |"Why?" she asked. |They went (quickly.) |Fine.',
    "curly quotes": "He said “Go.” |They went. |‘Well?’ |Yes.",
    "runs": "Wait... what? |No?! |Yes… |Good.",
    "links": "Visit https://example.com/a.b?c=1.25&d=2! |Then node.js 3.14 is out.",
    "hard-wrapped": "This line is hard\nwrapped and goes on\nfor a while. |Next one\nis here.",
    "notes": "It rained.[12] |It **snowed.** |`Then.` |End.",
    "numbered": "1. First thing. |2. Second thing.",
    "german": "Das ist z. B. ein Satz. |Dr. Müller kam am 3. Mai um 5 Uhr. |Er ging d. h. er lief.",
    "german numbers": "Der Preis beträgt 1.234,56 Euro bzw. mehr. |Am 12. Dezember war Schluß.",
    "german quotes": "„Komm!“ |Er lachte. |»Nein.« |Das war 1990. |Ja.",
    "french": "M. Dupont est là. |«\u00a0Bonjour\u00a0!\u00a0» |Il part.",
    "russian": "Он родился в 1990 г. в Москве. |Это т. е. правда. |А. С. Пушкин писал. |Да.",
    "chinese": "他说：“你好！”|然后走了。|真的吗？|我……我不知道。|圆周率是３．１４。|好!|对。",
    "japanese": "今日は晴れです。|「行こう。」と彼は言った。|本当ですか？|はい！|「そう。」|彼は笑った。",
    "korean": "안녕하세요. |오늘은 날씨가 좋습니다. |그렇죠?",
    "arabic": "هل أنت بخير؟ |نعم، أنا بخير. |شكرا!",
    "urdu": "یہ ایک جملہ ہے۔ |یہ دوسرا ہے۔ |کیا یہ تیسرا ہے؟ |ہاں۔",
    "hindi": "यह एक वाक्य है। |यह दूसरा है। |क्या यह तीसरा है? |हाँ।",
    "armenian": "Սա նախադասություն է։ |Սա երկրորդն է։",
    "burmese": "ဒါကစာကြောင်းပါ။ |ဒုတိယပါ။",
    "amharic": "ይህ ዓረፍተ ነገር ነው። |ሁለተኛ።",
    "thai": "วันนี้อากาศดี เราไปสวนสาธารณะ พรุ่งนี้ล่ะ? |ไม่รู้",
}


def cut(text: str, level: Level, *, exactly: bool = False) -> list[str]:
    characters, levels = borders(text)
    stops = characters[levels == level] if exactly else characters[levels >= level]
    return [text[a:b] for a, b in zip([0, *stops], [*stops, len(text)], strict=True)]


@pytest.mark.parametrize("marked", SENTENCES.values(), ids=SENTENCES)
def test_sentences(marked):
    assert cut(marked.replace("|", ""), Level.SENTENCE) == marked.split("|")


def test_words_of_thai_and_clauses_of_chinese_can_be_cut():
    assert cut("วันนี้อากาศดี เราไป", Level.WORD) == ["วันนี้อากาศดี ", "เราไป"]
    assert cut("今天天气很好，我们去公园、学校", Level.WORD) == ["今天天气很好，", "我们去公园、", "学校"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_and_paragraphs(end):
    text = end.join(["One is", "  two.", "", " \t", "Three.  Four.", "", "Five"])
    assert cut(text, Level.PARAGRAPH) == [
        f"One is{end}  two.{end}{end} \t{end}",
        f"Three.  Four.{end}{end}",
        "Five",
    ]
    assert cut(text, Level.LINE, exactly=True) == [f"One is{end}  ", text[len(f"One is{end}  ") :]]
    assert cut("a\fb\u2029c\u2028d", Level.PARAGRAPH) == ["a\f", "b\u2029", "c\u2028d"]


def test_a_heading_is_a_section_and_stays_with_what_is_below():
    text = "# Title?\n\n## Part.\n\nSome words. More.\n\n### Next\nText.\n#hashtag\n"
    assert cut(text, Level.SECTION) == [
        "# Title?\n\n## Part.\n\nSome words. More.\n\n",
        "### Next\nText.\n#hashtag\n",
    ]
    assert cut(text, Level.LINE)[0] == "# Title?\n\n## Part.\n\nSome words. "


def test_a_comment_in_fenced_code_is_no_heading():
    text = "Code:\n\n```sh\n# comment\nls\n```\n\n# Heading\n"
    assert cut(text, Level.SECTION) == ["Code:\n\n```sh\n# comment\nls\n```\n\n", "# Heading\n"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a", []),
        ("  ", []),
        (" a", []),
        ("a ", []),
        (" a. ", []),
        (" a b\n", [(3, Level.WORD)]),
        ("\ud800 \0.\r\nA\udfff", [(2, Level.WORD), (6, Level.SENTENCE)]),
    ],
)
def test_there_is_no_border_at_either_end(text, expected):
    characters, levels = borders(text)
    assert list(zip(characters.tolist(), levels.tolist(), strict=True)) == expected


ALPHABET = [
    *"aZ9ä好はก ـ .,;:!?…。」“”\"'()[]#*`~\n\r\f\t\u00a0\u2029\u0301\u200d\0\ud800😀",
    "Dr",
    "\n\n",
    "\n# ",
    "\n```",
]


def test_any_text_has_borders_where_something_begins():
    random_ = random.Random(20)
    for _ in range(2000):
        text = "".join(random_.choices(ALPHABET, k=random_.randrange(40)))
        characters, levels = borders(text)
        assert characters.dtype == "int64"
        assert levels.dtype == "int8"
        assert (characters[1:] > characters[:-1]).all()
        assert all(0 < character < len(text) for character in characters)
        assert not any(text[character].isspace() for character in characters)
        assert set(levels.tolist()) <= {1, 2, 3, 4, 5}
        after_spaces = {match.end() for match in re.finditer(r"(?<=\S)\s+(?=\S)", text)}
        assert after_spaces <= set(characters.tolist())


@pytest.mark.parametrize(
    "part",
    [".", " ", "a", "\n", "\n\n", "#", "\n# ", "\n```\n", ". ", "a.", ".)", '."', "(", "?!", "[1]", ".[1]",
     "A. ", "Dr.", "？", "」", "\u0301", ".\u00a0", "！“", ". (", "word ", "\ud800"],
)  # fmt: skip
def test_time_grows_with_the_text_alone(part):
    """With quadratic time a million characters would take hours."""
    characters, levels = borders(part * (1_000_000 // len(part)))
    assert len(characters) == len(levels)
