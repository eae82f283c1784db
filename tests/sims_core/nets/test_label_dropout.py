"""Label dropout of diffusers' U-Net: which classes are hidden, and what no class is."""

import pytest
import torch
from pydantic import ValidationError

from sims_core.common.frozen import WHOLE
from sims_core.diffusion.denoiser import EDMDenoiser
from sims_core.nets.build import build_net, initialise
from sims_core.nets.config import ModelConfig, SongUNetConfig, UNetConfig
from sims_core.nets.dropout import DropoutKeys, SeededDropout
from sims_core.nets.saved import load_model, save_model
from sims_core.training.config import TrainingConfig
from sims_core.training.trainer import Training

P = 0.1
NET = UNetConfig(block_out_channels=(8,), norm_num_groups=4, num_classes=3, label_dropout=P)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def net():
    made = build_net(NET)
    initialise(made, generator())
    with torch.no_grad():
        for parameter in made.parameters():  # the last layer starts at zero
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(1)))
    return made


def embedded(net, labels, keys):
    """The rows of the embedding that a pass in training takes."""
    seen = []
    hook = net.unet.class_embedding.register_forward_hook(lambda *call: seen.append(call[1][0]))
    net.train().tell(keys, None)
    net(torch.zeros(len(labels), 1, 8, 8), torch.zeros(len(labels)), labels)
    hook.remove()
    return seen[0]


def test_exactly_the_classes_that_the_keys_say_are_hidden(net):
    """The same hash as every dropout, of a layer of its own."""
    count = 4000
    labels = torch.arange(count) % 3
    keys = torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, generator=generator(2))
    alone = SeededDropout(P, net.label_dropout.kept.layer, DropoutKeys())
    alone.shared.keys = keys
    hidden = alone(torch.ones(count, 1))[:, 0] == 0
    assert torch.equal(embedded(net, labels, keys), torch.where(hidden, 3, labels))
    assert hidden.sum().item() == pytest.approx(P * count, abs=4 * (P * (1 - P) * count) ** 0.5)


def test_a_class_is_hidden_by_its_images_own_key(net):
    keys = torch.arange(200, dtype=torch.int32)
    labels = torch.arange(200) % 3
    whole = embedded(net, labels, keys)
    parts = [embedded(net, labels[i : i + 7], keys[i : i + 7]) for i in range(0, 200, 7)]
    assert torch.equal(torch.cat(parts), whole)


def test_no_class_is_an_embedding_of_its_own(net):
    x, c_noise = torch.randn(4, 1, 8, 8, generator=generator(3)), torch.full((4,), 0.3)
    net.eval()
    without = net(x, c_noise)
    theirs = net.unet(x, c_noise * net.noise_scale, torch.full((4,), 3)).sample
    assert torch.equal(without, theirs)
    labels = torch.tensor([0, 1, 2, 0])
    told = net(x, c_noise, labels)
    assert torch.equal(told, net.unet(x, c_noise * net.noise_scale, labels).sample)
    assert (told - without).abs().amax(dim=(1, 2, 3)).min() > 1e-4


def test_other_dropout_masks_are_what_they_were_without_it():
    """Label dropout is the last layer of the count: nothing else draws anew."""
    dropping = {"dropout": 0.5, "label_dropout": 0.0}
    layers = []
    for config in (NET.model_copy(update=dropping), NET.model_copy(update={"dropout": 0.5})):
        made = build_net(config)
        found = {n: m.layer for n, m in made.named_modules() if isinstance(m, SeededDropout)}
        layers.append({name: layer for name, layer in found.items() if name.startswith("unet.")})
    assert len(layers[0]) > 2
    assert layers[0] == layers[1]


def test_diffusers_opens_it_and_has_a_row_for_no_class(net, tmp_path):
    from diffusers import UNet2DModel

    save_model(EDMDenoiser(net, 0.5), ModelConfig(net=NET), tmp_path)
    loaded, config = load_model(tmp_path)
    assert config.net == NET
    theirs = UNet2DModel.from_pretrained(tmp_path / "net").eval()
    assert theirs.config.num_class_embeds == 4
    x = torch.randn(2, 1, 8, 8, generator=generator(4))
    with torch.no_grad():
        expected = theirs(x, torch.full((2,), 125.0), torch.full((2,), 3)).sample
    torch.testing.assert_close(loaded.net(x, torch.full((2,), 0.5)), expected)


def test_training_resumes_to_the_same_bytes_and_depends_on_it(random_images, tmp_path):
    data, labels = torch.from_numpy(random_images(24)), torch.arange(24) % 3
    recipe = TrainingConfig(kimg=0.16, batch_size=16)

    def training(p):
        net = NET.model_copy(update={"label_dropout": p})
        return Training(ModelConfig(net=net), recipe, data, seed=3, labels=labels)

    def weights(made):
        return torch.cat([p.detach().flatten() for p in made.denoiser.parameters()])

    def advanced(made, steps):
        for _ in range(steps):
            made.advance()
        return made

    whole = weights(advanced(training(0.5), 8))
    advanced(training(0.5), 3).save(tmp_path / "checkpoint.pt")
    torch.manual_seed(4711)
    resumed = training(0.5)
    resumed.load(tmp_path / "checkpoint.pt")
    assert torch.equal(weights(advanced(resumed, 5)), whole)
    assert not torch.equal(weights(advanced(training(0.2), 8)), whole)


def test_it_is_named_where_it_is_used_and_nowhere_else():
    plain = NET.model_copy(update={"label_dropout": 0.0})
    assert "label_dropout" not in ModelConfig(net=plain).model_dump()["net"]
    assert "label_dropout" in ModelConfig(net=plain).model_dump(context={WHOLE: True})["net"]
    assert ModelConfig(net=NET).model_dump()["net"]["label_dropout"] == P
    assert build_net(plain).unet.config.num_class_embeds == 3


def test_who_knows_no_class():
    song = SongUNetConfig(image_size=8, channels=1, num_classes=3, label_dropout=0.1)
    assert NET.knows_no_class
    assert song.knows_no_class
    assert not song.model_copy(update={"label_dropout": 0.0}).knows_no_class
    assert not song.model_copy(update={"num_classes": 0}).knows_no_class
    assert not UNetConfig(num_classes=3).knows_no_class


def test_a_network_without_classes_has_none_to_hide():
    with pytest.raises(ValidationError, match=r"label_dropout 0\.1 hides classes"):
        UNetConfig(label_dropout=0.1)
