"""Tuners: what moves, what does not, and that nothing changes before the first step."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from simmat_testing.networks import build_network
from simmat_testing.tiny import TINY
from torch import nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.nn.lora import add_lora
from simmat.nn.losses import mask_loss
from simmat.nn.pointwise import PointwiseConv2d
from simmat.nn.tuners import join_memory, set_train_mode, trainable_state
from simmat.plugin_specs import TransferLayerSpec, TunerSpec, TuningTargets
from simmat.plugins.builtin import TRANSFER_LAYERS, TUNERS
from simmat.plugins.registry import import_from_string

SPECS = {spec.name: spec for spec in TUNERS}
TARGETS = TuningTargets(
    lora={
        r"backbone[.]qkv": ((0, 2), 3),
        r"backbone[.]point": ((0,), 1),
        r"decoder[.]query": ((0,), 1),
    },
    spatial_layers=(r"backbone[.]point",),
    adapters={r"backbone[.]mlp": "before"},
    attention=(r"decoder[.]attend",),
    embed=(r"backbone[.]point[.](weight|bias)",),
    frozen=(r"decoder[.]prompt[.].*",),
)


class Attend(nn.Module):
    """An attention of two heads that takes a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.memory = 12, None
        self.qkv = nn.Linear(12, 36)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 12) tokens of one sequence to (B, 12)."""
        normed = nn.functional.layer_norm(x, (12,))
        q, k, v = (
            part.reshape(1, len(x), 2, 6).transpose(1, 2)
            for part in self.qkv(normed).chunk(3, -1)
        )
        if self.memory is not None:
            k, v = join_memory(k, v, self.memory, self.qkv)
        return (
            nn.functional.scaled_dot_product_attention(q, k, v)
            .transpose(1, 2)
            .reshape(len(x), 12)
        )


class Backbone(nn.Module):
    """A fused qkv, a 1x1 convolution, a BatchNorm, a residual MLP and a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Conv2d(4, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.qkv = nn.Linear(6, 12)
        self.before = nn.LayerNorm(12)
        self.mlp = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 4, H, W) to (B, 12)."""
        tokens = self.qkv(self.norm(self.point(x)).mean((2, 3)))
        out: torch.Tensor = self.drop(tokens + self.mlp(self.before(tokens)))
        return out


class Decoder(nn.Module):
    """An attention, a query layer, a norm, and a prompt layer that never moves."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = nn.Linear(12, 12)
        self.attend = Attend()
        self.query = nn.Linear(12, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 12) to (B, 3)."""
        out: torch.Tensor = self.norm(
            self.query(self.attend(self.drop(self.prompt(x))))
        )
        return out


class Model(nn.Module):
    """A model with both sides of a foundation model."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "toy"
        self.backbone = Backbone()
        self.decoder = Decoder()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 4, H, W) to (B, 3)."""
        out: torch.Tensor = self.decoder(self.backbone(x))
        return out


def toy(seed: int = 0) -> Model:
    """Return a frozen model with fixed random weights."""
    model = Model().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0, generator=generator)
    return model.requires_grad_(False)


def tune(
    model: nn.Module,
    tuner: str | TunerSpec,
    targets: TuningTargets = TARGETS,
    seed: int = 1,
    **options: object,
) -> nn.Module:
    """Apply a tuner, a built-in one by its name."""
    spec = SPECS[tuner] if isinstance(tuner, str) else tuner
    import_from_string(spec.apply)(
        model,
        targets=targets,
        generator=torch.Generator().manual_seed(seed),
        **{**spec.options, **options},
    )
    return model


X = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(4))


def moving(model: nn.Module) -> set[str]:
    """Return the names of the trainable parameters."""
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", SPECS)
def test_nothing_changes_before_the_first_step(name: str) -> None:
    """A tuned model starts as the pretrained one, bit for bit."""
    assert torch.equal(tune(toy(), name)(X), toy()(X))


def test_each_tuner_moves_what_it_says() -> None:
    """The tuner is the experiment; a parameter too many is another experiment."""
    every = {name for name, _ in toy().named_parameters()}
    prompt = {name for name in every if "decoder.prompt" in name}
    assert moving(tune(toy(), "frozen")) == set()
    assert moving(tune(toy(), "full")) == every - prompt
    assert (
        moving(tune(toy(), "decoder"))
        == {name for name in every if name.startswith("decoder.")} - prompt
    )
    factors = {
        f"{layer}.{factor}"
        for layer in ("backbone.qkv", "backbone.point", "decoder.query")
        for factor in ("lora_a", "lora_b")
    }
    assert moving(tune(toy(), "lora")) == factors
    assert moving(tune(toy(), "linear")) == {
        "backbone.point.weight",
        "backbone.point.bias",
    }


def test_lora_keeps_every_name_and_tensor_of_the_model() -> None:
    """A checkpoint, or a bundle of the frozen part, must still find its keys; a copy would double the memory."""
    model = toy()
    before = model.state_dict()
    after = tune(model, "lora").state_dict()
    assert set(before) <= set(after)
    assert all(after[key].data_ptr() == before[key].data_ptr() for key in before)


def test_lora_changes_only_the_slices_it_names() -> None:
    """In a fused qkv q and v, never k."""
    layer = nn.Linear(5, 12)
    tuned = copy.deepcopy(layer)
    add_lora(
        tuned,
        slices=(0, 2),
        parts=3,
        rank=2,
        alpha=4.0,
        generator=torch.Generator().manual_seed(0),
    )
    nn.init.normal_(tuned.lora_b, generator=torch.Generator().manual_seed(1))
    x = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(2))
    delta = tuned(x) - layer(x)
    first, last = tuned.lora_a.chunk(2)
    torch.testing.assert_close(delta[..., :4], 2.0 * x @ first.T @ tuned.lora_b[0].T)
    assert (delta[..., 4:8] == 0).all()
    torch.testing.assert_close(delta[..., 8:], 2.0 * x @ last.T @ tuned.lora_b[1].T)


def test_lora_of_a_convolution_is_that_of_a_linear_layer_at_every_pixel() -> None:
    """A 1x1 convolution is a linear layer; both forms must agree, strides too."""
    conv = nn.Conv2d(5, 6, 1, stride=2)
    tuned = copy.deepcopy(conv)
    add_lora(
        tuned,
        slices=(1,),
        parts=2,
        rank=3,
        alpha=3.0,
        generator=torch.Generator().manual_seed(0),
    )
    nn.init.normal_(tuned.lora_b, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(2))
    delta = tuned(x) - conv(x)
    assert (delta[:, :3] == 0).all()
    expected = torch.einsum(
        "or,rc,bchw->bohw", tuned.lora_b[0], tuned.lora_a, x[:, :, ::2, ::2]
    )
    torch.testing.assert_close(delta[:, 3:], expected)


def test_a_model_without_lora_layers_is_refused_by_name() -> None:
    """Training on with nothing tuned would look like a method that does not work."""
    with pytest.raises(ConfigError, match=r"'toy' names no layer for tuner 'lora'"):
        tune(toy(), "lora", TuningTargets())
    only_decoder = TuningTargets(lora={r"decoder[.]query": ((0,), 1)})
    with pytest.raises(ConfigError, match=r"'toy' names no layer of its backbone"):
        tune(toy(), "lora", only_decoder, where="backbone")


@pytest.mark.parametrize("name", ["decoder", "full"])
def test_a_model_where_nothing_may_move_is_refused_by_name(name: str) -> None:
    """The same for tuners that unfreeze."""
    with pytest.raises(ConfigError, match=r"'toy' has no parameter"):
        tune(toy(), name, TuningTargets(frozen=(r".*",)))


def test_a_layer_lora_cannot_take_is_refused_by_name() -> None:
    """A plugin's spec may name a 3x3 convolution, or slices that do not exist."""
    with pytest.raises(ConfigError, match=r"'backbone.norm'.*BatchNorm2d"):
        tune(toy(), "lora", TuningTargets(lora={r"backbone[.]norm": ((0,), 1)}))
    for slices, parts in [((0,), 5), ((3,), 3)]:
        with pytest.raises(ConfigError, match=r"slices .* of 'backbone.qkv'"):
            tune(
                toy(), "lora", TuningTargets(lora={r"backbone[.]qkv": (slices, parts)})
            )


def test_all_bad_options_are_reported_at_once() -> None:
    """One run, one list."""
    with pytest.raises(
        ConfigError, match=r"rank .* got 0; alpha .* got -1.*; where .* got 'neck'"
    ):
        tune(toy(), "lora", rank=0, alpha=-1.0, where="neck")


def test_frozen_batchnorm_keeps_its_statistics_and_trained_one_moves() -> None:
    """Frozen means the statistics too; else a model drifts without a single trained weight."""
    model = tune(toy(), "decoder")
    set_train_mode(model)
    model(X)
    frozen = toy().state_dict()
    state = model.state_dict()
    assert torch.equal(
        state["backbone.norm.running_mean"], frozen["backbone.norm.running_mean"]
    )
    assert not torch.equal(
        state["decoder.norm.running_mean"], frozen["decoder.norm.running_mean"]
    )


@pytest.mark.parametrize("shape", [(2, 6, 8, 4), (1, 6, 3, 5), (17, 6, 2, 2)])
def test_it_is_a_1x1_convolution_with_its_gradients(
    shape: tuple[int, int, int, int],
) -> None:
    """Small batches are computed as larger ones, which must show in the time alone."""
    generator = torch.Generator().manual_seed(0)
    layer = PointwiseConv2d(6, 5).double()
    results = []
    for function in (layer, lambda x: F.conv2d(x, layer.weight, layer.bias)):
        x = torch.randn(shape, generator=generator.manual_seed(0)).double()
        x.requires_grad_()
        layer.zero_grad()
        found = function(x)
        (found * torch.arange(shape[-1])).sum().backward()
        results.append((found, x.grad, layer.weight.grad, layer.bias.grad))
    torch.testing.assert_close(*results)


SIZE = 64


def images(count: int, size: int = SIZE) -> torch.Tensor:
    """Return (B, 3, S, S) normalised input."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def clicks(image_index: list[int], points: int = 2) -> PromptBatch:
    """Return a prompt of some points for every index."""
    generator = torch.Generator().manual_seed(6)
    return PromptBatch(
        image_index=torch.tensor(image_index),
        point_coords=torch.rand(len(image_index), points, 2, generator=generator)
        * SIZE,
        point_labels=torch.randint(
            0, 2, (len(image_index), points), generator=generator
        ),
    )


def network(transfer: TransferLayerSpec, tuner: TunerSpec) -> SimMAT:
    """Build the tiny model for three channels."""
    return build_network(TINY, transfer=transfer, tuner=tuner, image_size=SIZE)


def step(model: SimMAT, optimiser: torch.optim.Optimizer) -> None:
    """Take a training step on two images and five prompts."""
    optimiser.zero_grad()
    content = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    targets = (
        torch.rand(5, SIZE, SIZE, generator=torch.Generator().manual_seed(9)) > 0.5
    )
    mask_loss(model(images(2), content, clicks([0, 1, 1, 0, 0])), targets)[
        0
    ].mean().backward()
    optimiser.step()


@pytest.mark.parametrize(
    ("transfer", "tuner"),
    [
        pytest.param(
            transfer,
            tuner,
            id=f"{transfer.name}-{tuner.name}",
            marks=()
            if transfer.name == "mat-residual" or tuner.name == "lora"
            else pytest.mark.slow,
        )
        for transfer, tuner in product(TRANSFER_LAYERS, TUNERS)
    ],
)
def test_after_two_steps_what_trains_has_moved_and_what_is_frozen_has_not(
    transfer: TransferLayerSpec, tuner: TunerSpec
) -> None:
    """A trainable weight without gradient is dead, and a frozen one that moves is lost when the bundle is saved."""
    model = network(transfer, tuner)
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        assert {transfer.name, tuner.name} <= {"identity", "zeroshot", "frozen"}
        return
    set_train_mode(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD(trainable, 1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of dropout, as the training loop seeds it
        for _ in range(2):
            step(model, optimiser)
    kept = trainable_state(model)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name
        assert parameter.requires_grad == (name in kept)
    for name, tensor in model.state_dict().items():
        assert name in kept or torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("tuner", TUNERS, ids=lambda spec: spec.name)
def test_before_the_first_step_every_tuner_answers_as_the_frozen_model(
    tuner: TunerSpec,
) -> None:
    """LoRA starts at zero: bit for bit the pretrained model."""
    transfer = next(spec for spec in TRANSFER_LAYERS if spec.name == "zeroshot")
    frozen = next(spec for spec in TUNERS if spec.name == "frozen")
    content = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    # torch's attention takes another way where it must keep values for gradients
    with torch.inference_mode():
        tuned, plain = (
            network(transfer, spec)(images(2), content, clicks([0, 1]))
            for spec in (tuner, frozen)
        )
    assert torch.equal(tuned.logits, plain.logits)
    assert torch.equal(tuned.iou, plain.iou)


@pytest.mark.parametrize("name", SPECS)
def test_the_trainable_state_is_all_that_training_moves(name: str) -> None:
    """What is not in it is rebuilt from the foundation weights when a bundle is loaded."""
    expect_state_of_what_moves(tune(toy(), name))


def expect_state_of_what_moves(model: nn.Module) -> None:
    """Train a tuned toy for two steps, and compare what has changed with its trainable state."""
    wanted = torch.randn(5, 3, generator=torch.Generator().manual_seed(8))
    set_train_mode(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # its noise is torch's global one
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    if parameters:
        optimiser = torch.optim.SGD(parameters, 0.1)
        for _ in range(2):
            (model(X) - wanted).square().sum().backward()
            optimiser.step()
    else:
        model(X)
    changed = {
        key
        for key, tensor in model.state_dict().items()
        if not torch.equal(tensor, before[key])
    }
    kept = set(trainable_state(model))
    assert changed <= kept
    # BatchNorm takes the mean out again
    before_a_norm = {"backbone.point.bias", "decoder.query.bias"}
    assert kept - changed <= before_a_norm
