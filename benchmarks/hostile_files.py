"""Make files that attack decoders: bombs, files of two kinds, scripts, endless repetitions."""

import io
import struct
import zipfile
import zlib

from PIL import Image, PngImagePlugin

SCRIPT = b"<script>alert(1)</script>"
NAMES = (  # of files, as a client may send them
    *("a.png", "../../../etc/passwd", "/etc/passwd", "a\r\nX-Injected: 1.png", "a\0.png"),
    *("<script>alert(1)</script>.png", '"; filename="b.png', "ä€\u202egnp.exe", "x" * 5000, ""),
)
KINDS = ("image/png", "text/html", "image/svg+xml", "application/x-sh", "x" * 300, "")


def make_attacks() -> dict[str, bytes]:
    """Return hostile files by what they are."""
    plain = Image.new("RGB", (64, 48), (200, 30, 30))
    jpeg, png, gif = (_save(plain, kind) for kind in ("JPEG", "PNG", "GIF"))
    return {
        **_make_texts(),
        "nothing": b"",
        "one byte": b"\x89",
        "a megabyte of zeros": bytes(10**6),
        "GIF and script": b"GIF89a/*" + gif[8:] + b"*/=1;" + SCRIPT,
        "PNG, then HTML": png + b"<html>" + SCRIPT,
        "JPEG, then ZIP": jpeg + _zip(b"a" * 10**7),
        "HTML, then JPEG": b"<html>" + SCRIPT + jpeg,
        "PDF, then JPEG": b"%PDF-1.7\n" + jpeg,
        "script in a PNG's comment": _save_comment(SCRIPT.decode()),
        "comment of 60 MB": _save_comment("a" * 60_000_000),
        "PNG of 2.5 gigapixels": _make_png(50_000, 50_000, 10**6),
        "PNG of 169 megapixels": _make_png(13_000, 13_000, 13_001 * 13_000),
        "PNG of no pixels": _make_png(0, 10, 0),
        "PNG whose chunk is 2 GB long": png[:33] + struct.pack(">I", 0x7FFFFFFF) + png[37:],
        "GIF of a huge screen": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "GIF of 3,000 frames": _animate("GIF", 3000),
        "WebP of 200 frames": _animate("WEBP", 200),
        "PNG of 500 frames": _animate("PNG", 500),
        "TIFF of 300 pages": _animate("TIFF", 300),
        "TIFF whose pages are a circle": b"II*\0\x08\0\0\0" + struct.pack("<HI", 0, 8),
        "JPEG of 4 gigapixels": _resize_jpeg(jpeg, 65_500, 65_500),
        "JPEG of thousands of scans": _repeat_scans(),
        "JPEG without its end": jpeg[: len(jpeg) // 2],
        "ICO with a bomb": b"\0\0\1\0\1\0" + bytes(8) + struct.pack("<II", 10**6, 22)
        + _make_png(50_000, 50_000, 10**5),
    }  # fmt: skip


def _make_texts() -> dict[str, bytes]:
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "lol"}">' for n in range(12))
    outside = '<!ENTITY x SYSTEM "file:///etc/passwd">'
    return {
        "SVG with a script": b'<svg xmlns="http://www.w3.org/2000/svg">' + SCRIPT + b"</svg>",
        "SVG of a billion laughs": f"<?xml version='1.0'?><!DOCTYPE s [{laughs}]>"
        "<svg>&a11;</svg>".encode(),
        "SVG that names a file": f"<!DOCTYPE s [{outside}]><svg><text>&x;</text></svg>".encode(),
        "EPS with a program": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file quit",
        "ZIP of zeros": _zip(bytes(10**8)),
    }


def _save(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    return file.getvalue()


def _save_comment(text: str) -> bytes:
    file, comments = io.BytesIO(), PngImagePlugin.PngInfo()
    comments.add_text("comment", text, zip=True)
    Image.new("L", (64, 48)).save(file, "PNG", pnginfo=comments)
    return file.getvalue()


def _make_png(width: int, height: int, count: int) -> bytes:
    """Return a grey PNG of this size in its header, and ``count`` bytes of zeros as its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(count), 9)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _animate(kind: str, frames: int) -> bytes:
    images = [Image.new("L", (16, 16), number % 256) for number in range(frames)]
    file = io.BytesIO()
    images[0].save(file, kind, save_all=True, append_images=images[1:])
    return file.getvalue()


def _resize_jpeg(content: bytes, width: int, height: int) -> bytes:
    """Return a JPEG that claims to have another size."""
    position = content.index(b"\xff\xc0") + 5
    return content[:position] + struct.pack(">HH", height, width) + content[position + 4 :]


def _repeat_scans() -> bytes:
    """Return a progressive JPEG whose last scan comes again and again, each over all its pixels."""
    file = io.BytesIO()
    Image.effect_noise((1500, 1500), 40).save(file, "JPEG", progressive=True, quality=20)
    content = file.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * (10**7 // len(scan)) + content[-2:]
