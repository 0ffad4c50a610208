import dataclasses
import itertools

import timm
import torch
from torch import nn

from irgen.params import Retriever as Settings
from irgen.params.sections import Training
from irgen.training import optimizer


def with_rates(settings: Settings, decay: float) -> Settings:
    return dataclasses.replace(
        settings,
        encoder_learning_rate=1.0,
        learning_rate=9.0,
        layer_decay=decay,
        weight_decay=0.1,
    )


def rates_by_name(encoder: nn.Module, settings: Settings, decay: float) -> dict[str, float]:
    groups = optimizer.create_optimizer(encoder, [], with_rates(settings, decay)).param_groups
    names = {id(p): name for name, p in encoder.named_parameters()}
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


def test_lower_vit_blocks_learn_slower_and_the_stem_slowest(retriever_settings):
    encoder = timm.create_model("vit_tiny_patch16_224", depth=3, num_classes=0)
    rates = rates_by_name(encoder, retriever_settings, 0.5)
    assert rates["blocks.2.attn.qkv.weight"] == 1.0
    assert rates["blocks.1.attn.qkv.weight"] == 0.5
    assert rates["blocks.0.attn.qkv.weight"] == 0.25
    assert rates["patch_embed.proj.weight"] == 0.125
    assert rates["norm.weight"] == 1.0


def test_stages_of_a_convolutional_net_count_as_blocks(retriever_settings):
    encoder = timm.create_model("resnet10t", num_classes=0)
    rates = rates_by_name(encoder, retriever_settings, 0.5)
    assert rates["layer4.0.conv1.weight"] == 1.0
    assert rates["layer1.0.conv1.weight"] == 0.125
    assert rates["conv1.0.weight"] == 0.0625


def test_blocks_that_would_learn_far_more_slowly_than_the_last_one_stay_as_they_are(
    retriever_settings,
):
    encoder = timm.create_model("resnet10t", num_classes=0)
    rates = rates_by_name(encoder, retriever_settings, 0.2)
    assert rates["layer4.0.conv1.weight"] == 1.0 and rates["layer3.0.conv1.weight"] == 0.2
    still = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert still == {name for name, _ in encoder.named_parameters()} - set(rates)
    assert {"layer2.0.conv1.weight", "conv1.0.weight"} <= still


def test_every_parameter_is_in_one_group_and_vectors_are_not_decayed(retriever_settings):
    encoder, head = timm.create_model("resnet10t", num_classes=0), nn.Linear(4, 4)
    groups = optimizer.create_optimizer(
        encoder, head.parameters(), with_rates(retriever_settings, 0.9)
    ).param_groups
    listed = [p for group in groups for p in group["params"]]
    wanted = [*encoder.parameters(), *head.parameters()]
    assert sorted(map(id, listed)) == sorted(map(id, wanted))
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.1) for p in group["params"])
    assert {g["lr"] for g in groups if any(p is head.weight for p in g["params"])} == {9.0}


def test_the_rate_warms_up_then_falls_to_nothing():
    adam = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0, "peak": 2.0}])
    factors = [
        optimizer.set_rates(adam, step, Training(steps=20, warmup=0.2)) for step in range(21)
    ]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(factors[4:]))
    assert factors[20] == 0.0
    assert adam.param_groups[0]["lr"] == 0.0
