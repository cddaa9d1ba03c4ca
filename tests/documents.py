"""Small PDFs, good and bad, written by hand."""

import zlib

HELVETICA = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
SONG = (
    b"<</Type/Font/Subtype/Type0/BaseFont/STSong-Light/Encoding/UniGB-UCS2-H/DescendantFonts[<</Type/Font"
    b"/Subtype/CIDFontType0/BaseFont/STSong-Light"
    b"/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)/Supplement 0>>"
    b"/FontDescriptor<</Type/FontDescriptor/FontName/STSong-Light/Flags 4>>>>]>>"
)
LOCK = b"<</Filter/Standard/V 1/R 2/O<" + b"41" * 32 + b">/U<" + b"42" * 32 + b">/P -4>>"
IMAGE = b"<</Type/XObject/Subtype/Image/Width 1/Height 1/BitsPerComponent 8/ColorSpace/DeviceGray/Length 1>>"


def pdf(pages: list[bytes], title: str | None = None, locked: bool = False) -> bytes:
    """A document of these pages, each a PDF content stream. It has fonts /H and /S and an image /I."""
    kids = b" ".join(b"%d 0 R" % (6 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages)),
        HELVETICA,
        SONG,
        IMAGE + b"stream\n\x80\nendstream",
    ]
    for number, contents in enumerate(pages):
        packed = zlib.compress(contents)
        objects += [
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents %d 0 R" % (7 + 2 * number)
            + b"/Resources<</Font<</H 3 0 R/S 4 0 R>>/XObject<</I 5 0 R>>>>>>",
            b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(packed), packed),
        ]
    trailer = b"/Root 1 0 R"
    if title is not None:
        objects.append(b"<</Title<feff%s>>>" % title.encode("utf-16-be").hex().encode())
        trailer += b"/Info %d 0 R" % len(objects)
    if locked:
        objects.append(LOCK)
        trailer += b"/Encrypt %d 0 R/ID[<41><41>]" % len(objects)
    return written(objects, trailer)


def written(objects: list[bytes], trailer: bytes = b"/Root 1 0 R") -> bytes:
    """A PDF file of these objects, numbered from 1, with the table of where each is."""
    found = b"%PDF-1.4\n"
    table = b"0000000000 65535 f \n"
    for number, content in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(found)
        found += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    end = b"xref\n0 %d\n%strailer<</Size %d%s>>" % (len(objects) + 1, table, len(objects) + 1, trailer)
    return found + end + b"\nstartxref\n%d\n%%%%EOF" % len(found)


def lines(*texts: str, left: int = 50) -> bytes:
    """Lines of Latin or Chinese text, one below the other."""
    found = b"BT 14 TL %d 750 Td " % left
    for text in texts:
        if text.isascii():
            found += b"/H 12 Tf (%s) Tj T* " % text.encode()
        else:
            found += b"/S 12 Tf <%s> Tj T* " % text.encode("utf-16-be").hex().encode()
    return found + b"ET "


def bomb() -> bytes:
    """Nested forms, each drawn ten times by the one before it: 10^20 letters in all."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 5 0 R/Resources<</XObject<</A 6 0 R>>>>>>",
        HELVETICA,
        b"<</Length 5>>stream\n/A Do\nendstream",
    ]
    for number in range(7, 27):
        resources = b"/Resources<</Font<</H 4 0 R>>/XObject<</A %d 0 R>>>>" % min(number, 26)
        drawn = b"/A Do " * 10 if number < 26 else b"BT /H 12 Tf (x) Tj ET"
        objects.append(
            b"<</Type/XObject/Subtype/Form/BBox[0 0 600 800]%s/Length %d>>stream\n%s\nendstream"
            % (resources, len(drawn), drawn)
        )
    return written(objects)
