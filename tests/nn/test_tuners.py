"""Tuners: what moves, what does not, and that nothing changes before the first step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from simmat.errors import ConfigError
from simmat.nn.lora import add_lora
from simmat.nn.tuners import join_memory, set_train_mode, trainable_state
from simmat.plugin_specs import TunerSpec, TuningTargets
from simmat.plugins.builtin import TUNERS
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
