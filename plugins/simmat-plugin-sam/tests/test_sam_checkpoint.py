"""SAM weight files: what loads, what is refused and in which words, and what another input size does to them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from simmat_plugin_sam.checkpoint import (
    check_variant,
    fit_state,
    random_state,
    read_checkpoint,
)
from simmat_plugin_sam.model import SamModel, build_sam, sam_parts
from simmat_plugin_sam.specs import (
    SAM_VIT_B,
    SAM_VIT_L,
    SAM_VIT_TINY,
    VIT_MODELS,
)

from simmat.errors import WeightsError

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Return the tiny model's weights under segment-anything's names, at its native 256."""
    return sam_parts(
        build_sam(SAM_VIT_TINY, image_size=256, weights=None, seed=4)
    ).state_dict()


def save_zip(state: State, path: Path) -> None:
    """Save as torch does today."""
    torch.save(state, path)


def save_old(state: State, path: Path) -> None:
    """Save as torch did before 1.6."""
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("save", "name"),
    [(save_zip, "sam.pth"), (save_old, "sam.pth"), (save_file, "sam.safetensors")],
)
def test_every_format_loads_bit_for_bit_at_the_native_size(
    state: State, tmp_path: Path, save: Callable[[State, Path], None], name: str
) -> None:
    """At the size it was trained on a model must be exactly what was published."""
    save(state, tmp_path / name)
    loaded = sam_parts(
        build_sam(SAM_VIT_TINY, image_size=256, weights=tmp_path / name, seed=0)
    ).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_loaded_weights_do_not_hang_on_the_file(state: State, tmp_path: Path) -> None:
    """A cache may be cleared during training; memory mapped from a cut file ends the process."""
    path = tmp_path / "sam.pth"
    save_zip(state, path)
    model = build_sam(SAM_VIT_TINY, image_size=256, weights=path, seed=0)
    with torch.no_grad():
        model.backbone.image_encoder.pos_embed += 1
    assert torch.equal(
        read_checkpoint(path)["image_encoder.pos_embed"],
        state["image_encoder.pos_embed"],
    )
    path.write_bytes(b"")
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_half_precision_files_become_full(state: State, tmp_path: Path) -> None:
    """float16 holds less than float32, so nothing is lost on the way up."""
    half = {key: tensor.half() for key, tensor in state.items()}
    save_file(half, tmp_path / "sam.safetensors")
    model = build_sam(
        SAM_VIT_TINY, image_size=256, weights=tmp_path / "sam.safetensors", seed=0
    )
    loaded = sam_parts(model).state_dict()
    assert all(torch.equal(loaded[key], half[key].float()) for key in state)


@pytest.mark.parametrize("spec", VIT_MODELS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("asked", VIT_MODELS, ids=lambda spec: spec.name)
def test_the_wrong_variant_is_refused_by_name(spec: object, asked: object) -> None:
    """The three files look alike; a mixture would end in a hundred lines on shapes."""
    with torch.device("meta"):
        found = sam_parts(SamModel(spec, spec.image_size)).state_dict()
    if spec is asked:
        check_variant(found, asked, Path("file.pth"))
        return
    with pytest.raises(WeightsError, match=rf"{asked.name}.*--foundation {spec.name}"):
        check_variant(found, asked, Path("file.pth"))


def test_a_sam_of_unknown_size_is_named_by_its_size(state: State) -> None:
    """A student's distilled SAM is a SAM, but none of ours."""
    strange = {
        **state,
        "image_encoder.patch_embed.proj.weight": torch.zeros(96, 3, 16, 16),
    }
    with pytest.raises(WeightsError, match=r"width 96 and depth 2.*sam_vit_b"):
        check_variant(strange, SAM_VIT_B, Path("file.pth"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vision_encoder.patch_embed.projection.weight", "transformers"),
        ("image_encoder.trunk.pos_embed", "SAM 2"),
        ("module.image_encoder.pos_embed", "DistributedDataParallel"),
        ("fc.weight", "segment-anything publishes"),
    ],
)
def test_a_file_of_another_model_is_refused_with_a_hint(
    tmp_path: Path, name: str, hint: str
) -> None:
    """People have many .pth files."""
    save_zip({name: torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=rf"Segment Anything.*{hint}"):
        build_sam(SAM_VIT_L, image_size=1024, weights=tmp_path / "other.pth", seed=0)


class Trap:
    """An object whose unpickling would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))]
)
def test_code_in_a_file_is_refused_and_never_runs(
    tmp_path: Path, save: Callable[[object, Path], object]
) -> None:
    """A checkpoint from the internet is a program unless it is read as data."""
    save({"image_encoder.pos_embed": Trap(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_file_with_code_is_distinguished_from_a_damaged_one(tmp_path: Path) -> None:
    """One is to be fetched again, the other never to be trusted."""
    torch.save({"x": Trap(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="could run code"):
        read_checkpoint(tmp_path / "evil.pth")


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_a_truncated_file_is_called_damaged(
    state: State, tmp_path: Path, name: str, kept: float
) -> None:
    """Downloads break off; torch's own words for that are about archives and offsets."""
    path = tmp_path / name
    (save_zip if name.endswith("pth") else save_file)(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(WeightsError, match=f"{name} is damaged"):
        read_checkpoint(path)


def test_text_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    """What people point at by mistake."""
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=r"page\.pth is damaged"):
        read_checkpoint(tmp_path / "page.pth")
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(WeightsError, match=r"a folder|no such file"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02.",
        b"\x80\x02X\xff\xff\xff\xff.",
        b"\x80\x02]q\x00a.",
        b"(t.",
        b"PK\x03\x04",
    ],
)
def test_no_damage_of_a_pickle_ends_in_an_error_of_its_reader(
    tmp_path: Path, content: bytes
) -> None:
    """The reader runs a pickle's instructions: an empty stack is an IndexError there, a cut number a struct.error."""
    (tmp_path / "odd.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"odd\.pth is damaged.*fetch"):
        read_checkpoint(tmp_path / "odd.pth")


def test_a_tensor_larger_than_what_is_stored_is_refused_before_it_is_copied(
    state: State, tmp_path: Path
) -> None:
    """One number, said to be a terabyte of equal ones, is a few hundred bytes of file."""
    wide = {
        **state,
        "image_encoder.pos_embed": torch.zeros(1).expand(1, 2**16, 2**16, 64),
    }
    torch.save(wide, tmp_path / "wide.pth")
    with pytest.raises(WeightsError, match=r"wide\.pth .*image_encoder\.pos_embed"):
        build_sam(SAM_VIT_TINY, image_size=256, weights=tmp_path / "wide.pth", seed=0)


def test_a_tensor_without_plain_numbers_is_refused(tmp_path: Path) -> None:
    """A sparse tensor fails deep in the network, where nobody knows of the file."""
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(WeightsError, match=r"sparse\.pth is damaged: 'a'"):
        read_checkpoint(tmp_path / "sparse.pth")


@pytest.mark.parametrize(
    "value",
    [
        {"model": {"x": torch.zeros(1)}, "epoch": 3},
        [torch.zeros(1)],
        torch.zeros(1),
        {},
    ],
)
def test_what_is_not_a_table_of_tensors_is_refused(
    tmp_path: Path, value: object
) -> None:
    """A training checkpoint has the weights inside of something; which, we do not guess."""
    torch.save(value, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="table of tensors"):
        read_checkpoint(tmp_path / "odd.pth")


def test_all_that_does_not_fit_is_reported_at_once(
    state: State, tmp_path: Path
) -> None:
    """One message instead of one try after another."""
    broken = dict(state)
    del broken["mask_decoder.iou_token.weight"]
    broken["extra.weight"] = torch.zeros(1)
    broken["image_encoder.neck.0.weight"] = torch.zeros(3, 3, 1, 1)
    broken["mask_decoder.mask_tokens.weight"] = state[
        "mask_decoder.mask_tokens.weight"
    ].to(torch.int32)
    save_zip(broken, tmp_path / "sam.pth")
    with pytest.raises(WeightsError) as caught:
        build_sam(SAM_VIT_TINY, image_size=256, weights=tmp_path / "sam.pth", seed=0)
    for part in (
        "iou_token",
        "extra.weight",
        "neck.0.weight has shape (3, 3, 1, 1)",
        "mask_tokens.weight is torch.int32",
    ):
        assert part in str(caught.value)


def test_a_table_of_window_positions_is_never_stretched(
    state: State, tmp_path: Path
) -> None:
    """Windows have one size at every input size; another table is another model."""
    broken = {**state, "image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(27, 32)}
    save_zip(broken, tmp_path / "sam.pth")
    with pytest.raises(
        WeightsError,
        match=r"blocks.0.attn.rel_pos_h has shape \(27, 32\), needs \(13, 32\)",
    ):
        build_sam(SAM_VIT_TINY, image_size=256, weights=tmp_path / "sam.pth", seed=0)


@pytest.mark.parametrize("size", [64, 128, 400])
def test_another_size_interpolates_positions_and_nothing_else(
    state: State, tmp_path: Path, size: int
) -> None:
    """A ramp over the image must stay that ramp, and relative distances keep their sign and order."""
    n = 16
    ramp = torch.linspace(0, 1, 2 * n + 1)[1::2]  # at the centres of n patches
    smooth = dict(state)
    smooth["image_encoder.pos_embed"] = (
        ramp[None, None, :, None].expand(1, n, n, 64).contiguous()
    )
    distance = torch.arange(-(n - 1), n) / n  # of two patches, in sides of the image
    smooth["image_encoder.blocks.1.attn.rel_pos_h"] = (
        distance[:, None].expand(-1, 32).contiguous()
    )
    save_zip(smooth, tmp_path / "sam.pth")
    model = build_sam(
        SAM_VIT_TINY, image_size=size, weights=tmp_path / "sam.pth", seed=0
    )
    loaded = sam_parts(model).state_dict()
    m = size // 16
    inner = slice(m // 4, m - m // 4)
    centres = torch.linspace(0, 1, 2 * m + 1)[1::2]
    positions = loaded["image_encoder.pos_embed"]
    assert positions.shape == (1, m, m, 64)
    torch.testing.assert_close(
        positions[0, 0, inner, 0], centres[inner], atol=0.02, rtol=0
    )
    table = loaded["image_encoder.blocks.1.attn.rel_pos_h"][:, 0]
    assert table.shape == (2 * m - 1,)
    assert table[m - 1].abs() < 1e-6
    torch.testing.assert_close(
        table, torch.arange(-(m - 1), m) / m, atol=1 / n + 0.02, rtol=0
    )
    stays = (
        set(state)
        - {"image_encoder.pos_embed"}
        - {f"image_encoder.blocks.1.attn.rel_pos_{a}" for a in "hw"}
    )
    assert all(torch.equal(loaded[key], smooth[key]) for key in stays)


def test_random_weights_are_the_same_model_at_every_size() -> None:
    """A bundle trained at one size and a seed must mean one set of weights."""
    native = sam_parts(
        build_sam(SAM_VIT_TINY, image_size=256, weights=None, seed=4)
    ).state_dict()
    with torch.device("meta"):
        smaller = sam_parts(SamModel(SAM_VIT_TINY, 96))
    expected = fit_state(native, smaller, "test")
    got = sam_parts(
        build_sam(SAM_VIT_TINY, image_size=96, weights=None, seed=4)
    ).state_dict()
    assert all(torch.equal(got[key], expected[key]) for key in got)


def test_random_weights_have_torchs_default_spread() -> None:
    """Weights of another scale would make a random model worse, or a tuner's test blind."""
    with torch.device("meta"):
        parts = sam_parts(SamModel(SAM_VIT_TINY, 256))
    state = random_state(parts, 0)
    assert set(state) == set(parts.state_dict())
    qkv = state["image_encoder.blocks.0.attn.qkv.weight"]
    assert qkv.abs().max() <= 1 / 8
    assert qkv.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)
    assert (state["image_encoder.blocks.0.norm1.weight"] == 1).all()
    assert (state["image_encoder.blocks.0.norm1.bias"] == 0).all()
    assert state["image_encoder.pos_embed"].std().item() == pytest.approx(
        0.02, rel=0.05
    )
