"""torch.compile and torch.export of every network."""

import shutil
from copy import deepcopy

import pytest
import torch
from helpers.config import configuration
from helpers.networks import IMAGES, NARROW, choices
from hydra.utils import instantiate
from torch import Tensor, nn

from ganmnist.gan import GAN
from ganmnist.networks import perceptron
from ganmnist.networks.perceptron import MIN_WEIGHTS, Dropout, Linear
from ganmnist.utils.batch import Batch

# Every model, and the families that wrap the networks of a model or have their own.
FAMILIES = ["aae", "bigan", "cgan", "inpainting", "lapgan", "projection", "semisupervised"]
NETWORKS = [*(("gan", model) for model in choices("model")), *((f, "mlp") for f in FAMILIES)]
every_network = pytest.mark.parametrize(("family", "model"), NETWORKS)
BACKENDS = [
    "aot_eager",
    pytest.param(
        "inductor",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                shutil.which("c++") is None, reason="Inductor needs a C++ compiler, such as g++"
            ),
        ],
    ),
]


@pytest.fixture(autouse=True)
def empty_compile_cache() -> None:
    torch.compiler.reset()


def build(family: str, model: str) -> tuple[GAN, Batch, tuple[Tensor, ...]]:
    """A GAN, D's input, and G's inputs."""
    settings = [f"family={family}", f"model={model}", "latent_dim=16"]
    settings += [*NARROW.get(model, ()), *IMAGES.get(model, ())]
    if model == "mlp":  # compiled dropout uses other random numbers
        settings += ["model.generator.dropout=0", "model.discriminator.dropout=0"]
    config = configuration("folder=here", "data=digits", *settings)
    gan = instantiate(config.family)
    size, channels = config.data.image_size, config.data.channels
    batch = Batch(torch.rand(4, channels, size, size) * 2 - 1, torch.arange(4))
    z = gan.latent(4)
    with torch.no_grad():
        real = gan.real_inputs(batch, z)
    y = batch.y if gan.labels is not None else real.y
    takes_y = gan.labels is not None or family in ("inpainting", "superresolution")
    return gan, real, (z, y) if takes_y else (z,)


def outputs(network: nn.Module, inputs: tuple[Tensor | Batch, ...]) -> list[Tensor]:
    """The output in training mode, and the gradients of the sum of its squares."""
    torch.manual_seed(1)
    output = network(*inputs)
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [output, *torch.autograd.grad(output.square().sum(), parameters, materialize_grads=True)]


def compare(network: nn.Module, inputs: tuple[Tensor | Batch, ...], backend: str) -> None:
    """The network is one graph, which has the outputs and the gradients of the network."""
    copy = deepcopy(network)  # with the same batch statistics
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    with torch._inductor.config.patch(fallback_random=True):
        found, expected = outputs(compiled, inputs), outputs(copy, inputs)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-4)
    # Some gradients are 0 up to rounding, such as that of a bias before batch norm.
    atol = 1e-4 * max(gradient.abs().max().item() for gradient in expected[1:])
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
@every_network
def test_generators_compile(family: str, model: str, backend: str) -> None:
    gan, _, inputs = build(family, model)
    compare(gan.generator, inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@every_network
def test_discriminators_compile(family: str, model: str, backend: str) -> None:
    gan, real, _ = build(family, model)
    compare(gan.discriminator, (real,), backend)


@pytest.mark.parametrize("training", [False, True])
@every_network
def test_generators_export(family: str, model: str, training: bool) -> None:
    gan, _, inputs = build(family, model)
    generator = gan.generator.train(training)
    exported = torch.export.export(deepcopy(generator), inputs).module()
    torch.testing.assert_close(exported(*inputs), generator(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["compile", "export", "strict export"])
def test_compilers_see_the_layers_of_pytorch(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a layer large enough for oneDNN's product."""

    def fail(*inputs: Tensor) -> Tensor:
        raise AssertionError("oneDNN's product is traced")

    network = nn.Sequential(Linear(256, MIN_WEIGHTS // 256), Dropout(0.5))
    x = torch.randn(2, 256)
    monkeypatch.setattr(perceptron, "affine", fail)
    with pytest.raises(AssertionError, match="oneDNN"):
        network(x)
    if how == "compile":
        torch.compile(network, backend="aot_eager", fullgraph=True)(x)
    else:
        graph = torch.export.export(network, (x,), strict=how == "strict export").graph
        operators = {str(node.target) for node in graph.nodes if node.op == "call_function"}
        assert operators == {"aten.linear.default", "aten.dropout.default"}
