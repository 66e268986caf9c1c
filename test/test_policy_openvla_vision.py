"""Each kind of vision tower computes what transformers' own implementation of it computes."""

from openvla_folders import tower
import torch
from transformers import CLIPVisionConfig
from transformers import CLIPVisionModel
from transformers import Dinov2WithRegistersConfig
from transformers import Dinov2WithRegistersModel
from transformers import SiglipVisionConfig
from transformers import SiglipVisionModel

from vla_policy_node.policy.openvla.vision import VisionBackbone
from vla_policy_node.policy.openvla.vision import VisionTower

SIZES = {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3,
         'num_attention_heads': 2, 'image_size': 56, 'patch_size': 14}


def random_model(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model.eval()


def qkv(weights, prefix, names, kind):
    return torch.cat([weights[f'{prefix}{name}.{kind}'] for name in names])


def block(weights, source, names):
    """Rename the weights of one block; names: ours -> theirs."""
    found = {}
    for ours, theirs in names.items():
        for kind in ('weight', 'bias'):
            found[f'{ours}.{kind}'] = (
                qkv(weights, source, theirs, kind) if isinstance(theirs, tuple)
                else weights[f'{source}{theirs}.{kind}'])
    return found


def assert_same(kind, model, weights, skipped, **changes):
    ours = VisionTower(**tower(kind, dim=32, heads=2, **changes)).eval()
    ours.load_state_dict(weights)
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        wanted = model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(ours(pixels), wanted[:, skipped:], rtol=1e-4, atol=1e-4)


CLIP_NAMES = {
    'norm1': 'layer_norm1', 'norm2': 'layer_norm2', 'attn.proj': 'self_attn.out_proj',
    'attn.qkv': ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'),
    'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2'}


def clip_blocks(weights, prefix):
    return {f'blocks.{n}.{key}': value for n in range(2)
            for key, value in block(weights, f'{prefix}encoder.layers.{n}.', CLIP_NAMES).items()}


def stripped(model):
    return {name.removeprefix('vision_model.'): value
            for name, value in model.state_dict().items()}


def test_clip_with_its_own_activation_and_norm_before_the_blocks():
    model = random_model(CLIPVisionModel(CLIPVisionConfig(**SIZES, hidden_act='quick_gelu')))
    weights = stripped(model)
    assert_same('clip', model, {
        'patch_embed.proj.weight': weights['embeddings.patch_embedding.weight'],
        'cls_token': weights['embeddings.class_embedding'][None, None],
        'pos_embed': weights['embeddings.position_embedding.weight'][None],
        'norm_pre.weight': weights['pre_layrnorm.weight'],
        'norm_pre.bias': weights['pre_layrnorm.bias'],
        **clip_blocks(weights, '')}, 1)


def test_siglip_without_a_class_token():
    model = random_model(SiglipVisionModel(SiglipVisionConfig(
        **SIZES, hidden_act='gelu', layer_norm_eps=1e-6, vision_use_head=False)))
    weights = stripped(model)
    assert_same('siglip', model, {
        'patch_embed.proj.weight': weights['embeddings.patch_embedding.weight'],
        'patch_embed.proj.bias': weights['embeddings.patch_embedding.bias'],
        'pos_embed': weights['embeddings.position_embedding.weight'][None],
        **clip_blocks(weights, '')}, 0)


def test_dinov2_with_registers_and_layer_scale():
    sizes = {name: value for name, value in SIZES.items() if name != 'intermediate_size'}
    model = random_model(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(
        **sizes, mlp_ratio=2, num_register_tokens=4)))
    weights = model.state_dict()
    positions = weights['embeddings.position_embeddings']
    names = {
        'norm1': 'norm1', 'norm2': 'norm2', 'attn.proj': 'attention.o_proj',
        'attn.qkv': ('attention.q_proj', 'attention.k_proj', 'attention.v_proj'),
        'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2'}
    found = {
        'patch_embed.proj.weight': weights['embeddings.patch_embeddings.projection.weight'],
        'patch_embed.proj.bias': weights['embeddings.patch_embeddings.projection.bias'],
        # The original checkpoints have the class token's position in the token itself.
        'cls_token': weights['embeddings.cls_token'] + positions[:, :1],
        'reg_token': weights['embeddings.register_tokens'], 'pos_embed': positions[:, 1:]}
    for n in range(2):
        source = f'encoder.layer.{n}.'
        found |= {f'blocks.{n}.{key}': value
                  for key, value in block(weights, source, names).items()}
        for scale in (1, 2):
            found[f'blocks.{n}.ls{scale}.scale_factor'] = weights[
                f'{source}layer_scale{scale}.lambda1']
    assert_same('dinov2', model, found, 5)


def test_two_towers_get_their_own_channels_and_lie_side_by_side():
    torch.manual_seed(0)
    both = VisionBackbone([tower('dinov2'), tower('siglip')]).eval()
    pixels = torch.randn(1, 6, 56, 56)
    with torch.no_grad():
        found = both(pixels)
        assert found.shape == (1, 16, 64 + 48)
        torch.testing.assert_close(found[..., 64:], both.fused_featurizer(pixels[:, 3:]))
