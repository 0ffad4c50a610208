import pytest
import timm
import torch

from irgen.models.encoder import ImageEncoder

BACKBONES = {
    "a ViT": (
        "vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2},
        (48, 48, 16),
    ),
    "a convolutional net": (
        "resnet10t",
        {"channels": (8, 8, 16, 24), "stem_width": 8},
        (24, 24, 1),
    ),
    "a net with a head of its own": ("mobilenetv3_small_050", {}, (1024, 288, 1)),
    "a net with channels last": ("convnextv2_atto", {}, (320, 320, 1)),
}


@pytest.mark.parametrize(("name", "options", "widths"), BACKBONES.values(), ids=BACKBONES)
def test_any_backbone_gives_a_summary_and_tokens(name, options, widths):
    backbone = timm.create_model(name, num_classes=0, in_chans=1, **options)
    encoder = ImageEncoder(backbone, 32, 1, 1.0).eval()
    assert (encoder.width, encoder.token_width, encoder.token_count) == widths
    summary, tokens = encoder(torch.zeros(3, 1, 32, 32, dtype=torch.uint8))
    assert summary.shape == (3, widths[0])
    assert tokens.shape == (3, widths[2], widths[1])


def test_a_grid_of_means_stands_for_the_tokens():
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=96).eval()
    whole, pooled, larger = (ImageEncoder(backbone, 96, 3, 1.0, grid=n).eval() for n in (0, 3, 7))
    assert (whole.token_count, pooled.token_count, larger.token_count) == (36, 9, 36)
    pixels = 255 * torch.rand(2, 3, 96, 96)
    summary, tokens = whole(pixels)
    squares = tokens.view(2, 3, 2, 3, 2, 192).mean((2, 4))  # of 2 x 2 patches
    torch.testing.assert_close(pooled(pixels)[0], summary)
    torch.testing.assert_close(pooled(pixels)[1], squares.flatten(1, 2))
    torch.testing.assert_close(larger(pixels)[1], tokens)


def test_pixels_are_normalised_by_the_models_own_mean_and_deviation():
    backbone = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    encoder = ImageEncoder(backbone, 32, 3, 1.0)
    assert encoder.decoding.interpolation == "bicubic"
    torch.testing.assert_close(encoder.mean.flatten(), torch.full((3,), 127.5))
    torch.testing.assert_close(encoder.std.flatten(), torch.full((3,), 127.5))


def test_a_vits_summary_is_its_class_token_and_its_tokens_the_patches():
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32).eval()
    encoder = ImageEncoder(backbone, 32, 3, 1.0).eval()
    pixels = torch.full((1, 3, 32, 32), 200.0)
    summary, tokens = encoder(pixels)
    whole = backbone.forward_features((pixels - encoder.mean) / encoder.std)
    torch.testing.assert_close(summary, whole[:, 0])
    torch.testing.assert_close(tokens, whole[:, 1:])


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_pretrained_encoder_keeps_the_statistics_of_its_batch_norms(pretrained):
    torch.manual_seed(0)
    backbone = timm.create_model("resnet10t", num_classes=0, in_chans=1)
    encoder = ImageEncoder(backbone, 32, 1, 1.0, pretrained=pretrained).train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder(255 * torch.rand(4, 1, 32, 32))[0].sum().backward()
    kept = [torch.equal(before[name], buffer) for name, buffer in encoder.named_buffers()]
    assert all(kept) == pretrained
    assert all(p.grad is not None for n, p in encoder.named_parameters() if "bn" in n)
    assert encoder.training and not encoder.eval().training
