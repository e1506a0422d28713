"""Images are read from real files, good and bad, that each test makes."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamgen.errors import InputError
from streamgen.images.source import Images, Look, read_images

OWN = Look()


def pictures(count: int = 3, size: int = 16, colours: int = 3) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, colours), dtype=np.uint8)


def save(folder: Path, images: Images) -> None:
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{number:03}.png")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("colours", [1, 3])
def test_a_folder_gives_its_pixels_in_the_order_of_names(tmp_path: Path, colours: int) -> None:
    images = pictures(colours=colours)
    save(tmp_path, images)
    found = read_images(tmp_path, OWN)
    np.testing.assert_array_equal(found.images_NHWC, images)
    assert found.skipped == {}


def test_one_corrupt_image_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    images = pictures(4)
    save(tmp_path, images)
    whole = (tmp_path / "001.png").read_bytes()
    (tmp_path / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "void.png").write_bytes(b"")
    found = read_images(tmp_path, OWN)
    np.testing.assert_array_equal(found.images_NHWC, images[[0, 2, 3]])
    assert set(found.skipped) == {"001.png", "notes.txt", "void.png"}
    assert found.skipped["notes.txt"] == "no image of a known format"


def test_a_bomb_is_skipped_before_it_is_decoded(tmp_path: Path) -> None:
    """50,000 × 50,000 pixels are 2.5 GB; the file has 2.4 MB. And one below Pillow's own limits."""
    save(tmp_path, pictures(1))
    for name, side in (("bomb", 50_000), ("large", 9_000)):
        rows = zlib.compress(bytes((side // 8 + 1) * side))
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        (tmp_path / f"{name}.png").write_bytes(data)
    found = read_images(tmp_path, Look(size=16))
    assert len(found.images_NHWC) == 1
    assert "40,000,000" in found.skipped["bomb.png"]
    assert "9000 × 9000" in found.skipped["large.png"]


def test_several_sizes_need_a_size(tmp_path: Path) -> None:
    Image.new("RGB", (20, 30), "red").save(tmp_path / "a.png")
    Image.new("RGB", (40, 20), "blue").save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"2 sizes \(40 × 20, 20 × 30\).*--size"):
        read_images(tmp_path, OWN)
    found = read_images(tmp_path, Look(size=16)).images_NHWC
    assert found.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(found[:, 8, 8], [[255, 0, 0], [0, 0, 255]])


def test_what_is_scaled_keeps_its_proportions(tmp_path: Path) -> None:
    """A square in the middle of a wide image is cut out whole."""
    wide = np.zeros((32, 96), np.uint8)
    wide[:, 32:64] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (read_images(tmp_path, Look(size=16)).images_NHWC == 200).all()


def test_every_mode_comes_to_eight_bits_of_colour(tmp_path: Path) -> None:
    red = (255, 0, 0)
    drawn = Image.new("RGB", (16, 16), red)
    drawn.save(tmp_path / "a-rgb.png")
    drawn.convert("CMYK").save(tmp_path / "b-cmyk.jpg", quality=100)
    drawn.convert("P").save(tmp_path / "c-palette.png")
    drawn.save(tmp_path / "d-animated.gif", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")])
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "e-clear.png")
    Image.fromarray(np.full((16, 16), 0x8000, np.uint16)).save(tmp_path / "f-16-bit.png")
    Image.new("1", (16, 16), 1).save(tmp_path / "g-bits.png")
    found = read_images(tmp_path, OWN)
    assert found.skipped == {}
    middle = found.images_NHWC[:, 8, 8].astype(int)
    expected = [red, red, red, red, (255, 255, 255), (128, 128, 128), (255, 255, 255)]
    np.testing.assert_allclose(middle, expected, atol=3)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_with_a_transparent_level_stays_grey(tmp_path: Path, mode: str) -> None:
    drawn = Image.new(mode, (16, 16), 0)
    drawn.putpixel((3, 2), 1 if mode == "1" else 77)
    drawn.save(tmp_path / "a.png", transparency=0)
    (image_HWC,) = read_images(tmp_path, OWN).images_NHWC
    assert image_HWC.shape == (16, 16, 1)
    assert image_HWC[2, 3, 0] == (255 if mode == "1" else 77)
    assert image_HWC[0, 0, 0] == 255


def test_floating_point_values_are_skipped_with_a_reason(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(tmp_path / "a.tiff")
    save(tmp_path, pictures(1))
    found = read_images(tmp_path, OWN)
    assert len(found.images_NHWC) == 1
    assert found.skipped == {
        "a.tiff": "its values are floating-point, and which is white is not known: save it with 8 or 16 bits"
    }


def test_grey_and_colour_as_asked(tmp_path: Path) -> None:
    Image.new("L", (16, 16), 10).save(tmp_path / "a.png")
    Image.new("RGB", (16, 16), (0, 255, 0)).save(tmp_path / "b.png")
    assert read_images(tmp_path, OWN).images_NHWC.shape[3] == 3
    grey = read_images(tmp_path, Look(colours="grey")).images_NHWC
    assert grey.shape[3] == 1
    assert grey[:, 0, 0, 0].tolist() == [10, 150]


def test_what_stands_on_its_side_is_turned(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[0] = 255
    drawn = Image.fromarray(image)
    exif = drawn.getexif()
    exif[0x0112] = 3  # turned by half
    drawn.save(tmp_path / "a.png", exif=exif)
    assert read_images(tmp_path, OWN).images_NHWC[0, 15].min() == 255


def test_a_folder_without_a_usable_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no image that can be used .it is empty"):
        read_images(tmp_path, OWN)
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(InputError, match=r"a\.png: no image of a known format"):
        read_images(tmp_path, OWN)
    with pytest.raises(InputError, match="nothing at"):
        read_images(tmp_path / "none", OWN)


def test_an_npz_is_read(tmp_path: Path) -> None:
    images = pictures(colours=1)
    np.savez(tmp_path / "one.npz", train=images[..., 0], labels=np.zeros(3, np.uint8))
    np.testing.assert_array_equal(read_images(tmp_path / "one.npz", OWN).images_NHWC, images)
    np.savez(tmp_path / "two.npz", train=images, test=images[:1])
    with pytest.raises(InputError, match=r"several \(train, test\)"):
        read_images(tmp_path / "two.npz", OWN)
    assert len(read_images(tmp_path / "two.npz", OWN, "test").images_NHWC) == 1
    with pytest.raises(InputError, match="no array 'valid'"):
        read_images(tmp_path / "two.npz", OWN, "valid")


def test_arrays_that_are_no_images_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, x=pictures().astype(np.float32))
    with pytest.raises(InputError, match="float32, not uint8"):
        read_images(file, OWN)
    np.savez(file, x=pictures(colours=2))
    with pytest.raises(InputError, match="1 or 3"):
        read_images(file, OWN)
    np.savez(file, x=np.array([[[None]]], dtype=object))
    with pytest.raises(InputError, match=r"no .npz file of numbers"):
        read_images(file, OWN)
    np.savez(file, x=pictures(0))
    with pytest.raises(InputError, match="empty"):
        read_images(file, OWN)
    np.savez(file, x=pictures(size=8))
    with pytest.raises(InputError, match=r"8 × 8 pixels.*--size"):
        read_images(file, OWN)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        read_images(file, OWN)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_is_read_plain_and_packed(tmp_path: Path, packed: bool) -> None:
    images = pictures(5, colours=1)
    data = struct.pack(">BBBBIII", 0, 0, 8, 3, 5, 16, 16) + images.tobytes()
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(gzip.compress(data) if packed else data)
    np.testing.assert_array_equal(read_images(file, OWN).images_NHWC, images)


def test_a_broken_idx_is_named(tmp_path: Path) -> None:
    file = tmp_path / "idx"
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, 5, 16, 16)
    for content, said in (
        (b"text", "neither a folder"),
        (header + bytes(100), "1,280 bytes, and has 100"),
        (header[:10], "header is not whole"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes(5), "labels"),
        (gzip.compress(header)[:-4], "damaged"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=said):
            read_images(file, OWN)
