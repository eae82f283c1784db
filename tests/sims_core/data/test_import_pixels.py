"""Pixels are what a viewer would show, or the picture is refused, or it is said."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sims_core.data.colours import CONVERTED, GAMMA, UNUSABLE
from sims_core.data.importing import ProfilesFound
from sims_core.data.pictures import FURTHER_PICTURES, BrokenImage, decode, look_and_decode


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width, height, bits, colour, row, *chunks):
    """A PNG of equal rows, of any depth and form."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = zlib.compress((b"\0" + row) * height)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("bits", "row", "level"),
    [(1, b"\x55", 1), (2, b"\x1b\x1b", 2), (4, b"\x12\x34\x56\x78", 5), (8, bytes(range(8)), 3)],
)
def test_a_transparent_grey_level_of_any_depth(bits, row, level):
    seen_through = raw_png(8, 8, bits, 0, row, chunk(b"tRNS", struct.pack(">H", level)))
    with pytest.raises(BrokenImage, match="transparent"):
        decode(seen_through)
    plain = decode(raw_png(8, 8, bits, 0, row))
    unused = 9 if bits == 4 else 200
    if bits in (4, 8):  # a level that no pixel has
        opaque = raw_png(8, 8, bits, 0, row, chunk(b"tRNS", struct.pack(">H", unused)))
        assert np.array_equal(decode(opaque), plain)


def test_a_transparent_colour_and_a_transparent_entry_of_a_palette():
    row = bytes([9, 9, 9] * 4 + [1, 2, 3] * 4)
    key = struct.pack(">HHH", 1, 2, 3)
    with pytest.raises(BrokenImage, match="transparent"):
        decode(raw_png(8, 8, 8, 2, row, chunk(b"tRNS", key)))
    palette = chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0, 0, 255, 0]))
    for alpha, used, refused in ((b"\xff\x80", 1, True), (b"\xff\x80", 2, False), (b"", 1, False)):
        content = raw_png(8, 8, 8, 3, bytes([0, used] * 4), palette, chunk(b"tRNS", alpha))
        if refused:
            with pytest.raises(BrokenImage, match="transparent"):
                decode(content)
        else:
            assert decode(content).shape == (3, 8, 8)


def test_a_gif_with_a_transparent_colour_that_no_pixel_has():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    for transparent, refused in ((1, True), (0, False)):
        buffer = io.BytesIO()
        image.save(buffer, "gif", transparency=transparent)
        if refused:
            with pytest.raises(BrokenImage, match="transparent"):
                decode(buffer.getvalue())
        else:
            assert decode(buffer.getvalue())[:, 0, 0].tolist() == [200, 10, 10]


def tiff16(mode):
    """A TIFF of 16 bits, written by hand: Pillow writes none in RGB."""
    channels = {"grey": 1, "rgb": 3}[mode]
    pixels = struct.pack("<H", 0x1234) * (4 * 4 * channels)
    entries = [
        (256, 3, 1, 4),
        (257, 3, 1, 4),
        (259, 3, 1, 1),
        (262, 3, 1, 1 if channels == 1 else 2),
    ]
    start = 8 + 2 + 12 * 8 + 4
    entries += [(258, 3, channels, 16 if channels == 1 else start), (273, 4, 1, start + 6)]
    entries += [(277, 3, 1, channels), (279, 4, 1, len(pixels))]
    fields = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return (
        b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)
        + struct.pack("<HHH", 16, 16, 16) + pixels
    )  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        raw_png(4, 4, 16, 0, bytes(8)),
        raw_png(4, 4, 16, 2, bytes(24)),
        raw_png(4, 4, 16, 4, b"\0\0\xff\xff" * 4),
        raw_png(4, 4, 16, 6, b"\0\0\0\0\0\0\xff\xff" * 4),
        b"P5 4 4 65535\n" + bytes(32),
        b"P6 4 4 1023\n" + bytes(96),
        b"P3 2 1 300\n" + b"1 2 3 4 5 6\n",
        tiff16("grey"),
        tiff16("rgb"),
    ],
)
@pytest.mark.parametrize("channels", [None, 3])
def test_sixteen_bits_are_refused_in_every_format(content, channels):
    with pytest.raises(BrokenImage, match="bits a channel, not grey or RGB of 8 bits"):
        decode(content, channels=channels)


def test_fewer_bits_are_spread_over_eight():
    assert decode(raw_png(8, 8, 2, 0, b"\x1b\x1b"))[0, 0].tolist() == [0, 85, 170, 255] * 2
    assert decode(b"P5 2 1 100\n" + bytes([50, 100])).tolist() == [[[128, 255]]]


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}
"""What stands in the first row and the first column of the stored pixels, by EXIF 2.32, 4.6.4 A:
1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right top, 7 right bottom,
8 left bottom."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_a_picture_is_turned_upright(kind, grey, orientation):
    """Every pixel of it, against the same file without an orientation, turned by numpy."""
    options = {"lossless": True} if kind == "webp" else {}
    shape = (6, 9) if grey else (6, 9, 3)
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode(coloured(pixels, None, kind, **options))
    if kind != "jpeg":
        assert (plain == np.moveaxis(np.atleast_3d(pixels), -1, 0)).all()
    turned = decode(coloured(pixels, None, kind, exif=exif, **options))
    expected = UPRIGHT[orientation](np.moveaxis(plain, 0, -1))
    assert np.array_equal(turned, np.moveaxis(expected, -1, 0))
    assert turned.shape[1:] == ((6, 9) if orientation < 5 else (9, 6))


def lab_tiff(pixels):
    """A TIFF in CIE L*a*b*, written by hand: L from 0 to 255 for 0 to 100, a and b signed bytes."""
    height, width, _ = pixels.shape
    start = 8 + 2 + 9 * 12 + 4
    entries = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, start), (259, 3, 1, 1)),
        *((262, 3, 1, 8), (273, 4, 1, start + 6), (277, 3, 1, 3), (278, 3, 1, height)),
        (279, 4, 1, pixels.size),
    ]
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)
    return head + struct.pack("<HHH", 8, 8, 8) + pixels.astype(np.uint8).tobytes()


def lab_to_srgb(lab):
    """CIE 15 and IEC 61966-2-1: from L*a*b* under D50 to levels of sRGB, its D65 by Bradford."""
    level = (lab[..., 0] + 16) / 116
    f = np.stack([level + lab[..., 1] / 500, level, level - lab[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    to_linear_rgb = np.array(
        [
            [3.1338561, -1.6168667, -0.4906146],
            [-0.9787684, 1.9161415, 0.0334540],
            [0.0719453, -0.2289914, 1.4052427],
        ]
    )
    linear = np.clip(xyz @ to_linear_rgb.T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_a_tiff_in_lab():
    lightness = np.linspace(40, 90, 8)
    colours = [(0, 0), (20, 0), (-20, 10), (10, -25), (0, 30)]
    lab = np.array([[(level, *colour) for level in lightness] for colour in colours])
    lab[..., 0] = (lab[..., 0] * 255 / 100).round() * 100 / 255
    stored = np.stack([lab[..., 0] * 255 / 100, lab[..., 1] % 256, lab[..., 2] % 256], -1)
    content = lab_tiff(stored.round())
    with pytest.raises(BrokenImage, match="has the form LAB, not grey or RGB of 8 bits"):
        decode(content)
    found = np.moveaxis(decode(content, channels=3), 0, -1)
    assert np.abs(found - lab_to_srgb(lab)).max() <= 2
    luma = lab_to_srgb(lab) @ [0.299, 0.587, 0.114]  # as Pillow makes any colours grey
    assert np.abs(decode(content, channels=1)[0] - luma).max() <= 2


def frames(kind, count):
    images = [Image.new("RGB", (8, 8), (40 * i + 40, 0, 0)) for i in range(count)]
    buffer = io.BytesIO()
    images[0].save(buffer, kind, save_all=True, append_images=images[1:])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_animations_and_pages_are_refused(kind):
    assert decode(frames(kind, 1)).shape == (3, 8, 8)
    with pytest.raises(BrokenImage, match="several frames or pages"):
        decode(frames(kind, 3))


def test_a_cameras_further_pictures_are_told():
    seen = look_and_decode(frames("mpo", 2))
    assert seen.remarks == (FURTHER_PICTURES,)
    assert seen.pixels.shape == (3, 8, 8)


def built_in(name):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def linear_profile():
    """sRGB's colours with brightness in proportion to light: v3.4, curves of gamma 1."""
    profile = bytearray(built_in("sRGB"))
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 0x0100) + bytes(2)
    count = struct.unpack(">I", profile[128:132])[0]
    for n in range(count):
        at = 132 + 12 * n
        if profile[at : at + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = struct.unpack(">I", profile[at + 4 : at + 8])[0]
            profile[offset : offset + len(curve)] = curve
            profile[at + 8 : at + 12] = struct.pack(">I", len(curve) - 2)
    return bytes(profile)


def coloured(pixels, profile, kind="png", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, icc_profile=profile, **options)
    return buffer.getvalue()


def to_linear(srgb):
    """IEC 61966-2-1's curve, 8 bits to 8 bits."""
    x = srgb / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) * 255


def test_the_same_picture_in_two_profiles_is_the_same():
    """Light levels from 40 up: below, 8 bits of linear light are too coarse to tell."""
    srgb = np.random.default_rng(0).integers(100, 256, (16, 16, 3)).astype(np.uint8)
    linear = to_linear(srgb).round().astype(np.uint8)
    plain = np.moveaxis(srgb, -1, 0).astype(int)
    for kind, options in (("png", {}), ("tiff", {}), ("webp", {"lossless": True})):
        seen = look_and_decode(
            coloured(linear, linear_profile(), kind, **options), convert_colours=True
        )
        assert seen.remarks == (CONVERTED,)
        assert np.abs(seen.pixels - plain).max() <= 2, "half a level of linear light"
    assert np.abs(np.moveaxis(linear, -1, 0) - plain).mean() > 14, "what was taken before"


def test_srgb_by_name_changes_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    profile = built_in("sRGB")
    seen = look_and_decode(coloured(pixels, profile))
    assert np.array_equal(seen.pixels, np.moveaxis(pixels, -1, 0))
    assert seen.remarks == ()


@pytest.mark.parametrize("profile", [b"nothing", built_in("LAB")])
def test_a_profile_that_cannot_be_used_is_told(profile):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    seen = look_and_decode(coloured(pixels, profile))
    assert np.array_equal(seen.pixels, np.moveaxis(pixels, -1, 0))
    assert seen.remarks == (UNUSABLE,)


@pytest.mark.parametrize(("gamma", "said"), [(100_000, True), (45_455, False)])
def test_the_gamma_of_a_png_is_told(gamma, said):
    content = raw_png(4, 4, 8, 0, bytes(4), chunk(b"gAMA", struct.pack(">I", gamma)))
    assert look_and_decode(content).remarks == ((GAMMA,) if said else ())


def test_an_import_with_other_colours_converts_all_and_counts_them(put, png, import_all, tmp_path):
    linear = coloured(np.full((4, 4, 3), 55, np.uint8), linear_profile())
    plain = coloured(np.full((4, 4, 3), 128, np.uint8), None)
    source = put("folder", tmp_path / "s", {"a.png": plain, "b.png": linear, "c.png": plain})
    with pytest.raises(ProfilesFound, match=r"b\.png: has a colour profile other than sRGB"):
        import_all(source)
    got = import_all(source, srgb=True)
    assert got.details["remarks"] == {CONVERTED: {"count": 1, "first": ["b.png"]}}
    assert np.abs(got.images.astype(int) - 128).max() <= 1
    assert (got.details["formats"], got.details["original_sides"]) == ({"PNG": 3}, [4, 4])
    without = put("folder", tmp_path / "t", {"a.png": plain})
    assert "srgb" not in import_all(without).plan.config.model_dump(), "named as it ever was"


def test_a_picture_that_stays_as_large_as_it_is_has_a_bound(monkeypatch):
    monkeypatch.setattr("sims_core.data.pictures.MAX_PIXELS", 63)
    content = coloured(np.zeros((8, 8, 3), np.uint8), None)
    with pytest.raises(BrokenImage, match="has 8 x 8 pixels: pass `size`"):
        decode(content)
    assert decode(content, size=4).shape == (3, 4, 4)
