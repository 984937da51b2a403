"""The models of the coverage sweep: how each is built, small, with random weights, and called."""

import fnmatch
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Case = tuple[nn.Module, Any]
"""A model in evaluation mode and an example input."""

FAST = (
    "torchvision:resnet18",
    "torchvision:mobilenet_v2",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:squeezenet1_1",
    "torchvision:regnet_x_400mf",
    "torchvision:densenet121",
    "timm:resnet10t",
    "timm:deit_tiny_patch16_224",
    "timm:convnext_atto",
    "transformers:bert",
    "transformers:llama",
    "transformers:gpt2",
)
"""Twelve that are quick, for continuous integration."""

_RCNN = {"min_size": 128, "max_size": 128, "box_score_thresh": 0.0}
_ONE_STAGE = {"min_size": 128, "max_size": 128, "score_thresh": 0.0}
_DETECTION: dict[str, dict[str, Any]] = {
    "fasterrcnn_resnet50_fpn": _RCNN,
    "fasterrcnn_resnet50_fpn_v2": _RCNN,
    "fasterrcnn_mobilenet_v3_large_fpn": _RCNN,
    "fasterrcnn_mobilenet_v3_large_320_fpn": _RCNN,
    "maskrcnn_resnet50_fpn": _RCNN,
    "maskrcnn_resnet50_fpn_v2": _RCNN,
    "keypointrcnn_resnet50_fpn": _RCNN,
    "retinanet_resnet50_fpn": _ONE_STAGE,
    "retinanet_resnet50_fpn_v2": _ONE_STAGE,
    "fcos_resnet50_fpn": _ONE_STAGE,
    "ssd300_vgg16": {"score_thresh": 0.0},
    "ssdlite320_mobilenet_v3_large": {"score_thresh": 0.0},
}
_VIDEO = ("mc3_18", "r2plus1d_18", "r3d_18", "s3d", "swin3d", "mvit")
_SEGMENTATION = ("deeplabv3", "fcn_", "lraspp")

_TIMM = """
beit_base_patch16_224 botnet26t_256 eca_halonext26ts gcresnext26ts cait_xxs24_224 coat_lite_tiny
convit_tiny convmixer_768_32 convnext_atto convnextv2_atto cpubone_b0_bfrobust crossvit_9_240
csatv2 cs3darknet_focus_s cspresnet50 darknet53 davit_tiny deit_tiny_patch16_224
deit3_small_patch16_224 densenet121 dla34 dla60_res2net dpn48b edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientnet_b0 mixnet_s tinynet_e mobilenetv2_100 efficientvim_m1
efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf
gcvit_xxtiny gemma4_vit_167m ghostnet_100 ghostnetv2_100 hardcorenas_a hgnetv2_b0
hiera_tiny_224 hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3
inception_v4 lambda_resnet26t lcnetv2_small levit_128s lowformer_b0 mambaout_femto
coatnet_nano_rw_224 maxvit_rmlp_pico_rw_256 poolformer_s12 poolformerv2_s12 caformer_s18
convformer_s18 mixer_s32_224
gmlp_ti16_224 resmlp_12_224 mobilenetv3_small_050 fbnetv3_b lcnet_050 mobilenetv4_conv_small
mobilenetv5_base mobilevit_xxs mobilevitv2_050 mvitv2_tiny naflexvit_base_patch16_gap nasnetalarge
nest_tiny nextvit_small dm_nfnet_f0 nf_resnet26 eca_nfnet_l0 pit_ti_224 pnasnet5large pvt_v2_b0
qwen3_vit_88m rdnet_tiny regnetx_002 regnety_002 repghostnet_050 repvit_m0_9 repvgg_a0
res2net50_14w_8s resnest14d resnet10t resnet26d seresnet18 ecaresnet26t resnetv2_18
resnetv2_50x1_bit rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18
starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swin_s3_tiny_224
swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m
twins_pcpvt_small twins_svt_small vgg11_bn visformer_tiny vit_tiny_patch16_224
vit_small_r26_s32_224 vit_relpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224
volo_d1_224 vovnet39a ese_vovnet19b_dw legacy_xception xception41 xcit_nano_12_p16_224
"""
TIMM = _TIMM.split()


def names(pattern: str = "*") -> list[str]:
    """List the sweep's models that match a pattern, `torchvision:*`, `*resnet*`."""
    from torchvision import models

    found = [f"torchvision:{n}" for n in models.list_models() if "quantized" not in n]
    found += [f"timm:{n}" for n in TIMM] + [f"transformers:{n}" for n in TRANSFORMERS]
    return [n for n in found if fnmatch.fnmatch(n, pattern)]


def build(name: str) -> Case:
    """Build one model by its name in the sweep, and an example."""
    torch.manual_seed(0)
    source, _, rest = name.partition(":")
    makers: dict[str, Callable[[str], Case]] = {
        "torchvision": _torchvision,
        "timm": _timm,
        "transformers": _transformers,
    }
    model, example = makers[source](rest)
    return energised(model.eval()), example


def energised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight a size that matters, in place.

    Freshly built networks hide errors: layer scales of 1e-6, last norms of zero and zero
    biases make whole branches invisible in the output.
    """
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *model.named_buffers()]:
            if not p.is_floating_point() or p.numel() < 2:
                continue
            if name.endswith(("running_var", "running_std")):
                p.copy_(torch.rand(p.shape, generator=g) + 0.5)
            elif name.endswith("running_mean"):
                p.copy_(torch.randn(p.shape, generator=g) * 0.1)
            elif not isinstance(p, nn.Parameter):
                continue
            elif name.endswith("bias") or float(p.abs().max()) == 0:
                p.copy_(torch.randn(p.shape, generator=g) * 0.1)
            elif p.dim() >= 2 and float(p.std()) > 0:
                p.mul_((p[0].numel() ** -0.5) / p.std())
            else:
                p.copy_(torch.rand(p.shape, generator=g) * 0.6 + 0.4)
    return model


def _torchvision(name: str) -> Case:
    from torchvision import models

    extra: dict[str, Any] = {}
    if name in _DETECTION:
        extra = {"weights_backbone": None, **_DETECTION[name]}
        example: Any = ([torch.rand(3, 128, 128)],)
    elif name.startswith(_SEGMENTATION):
        extra, example = {"weights_backbone": None}, torch.randn(1, 3, 64, 64)
    elif name.startswith("raft"):
        example = {
            "image1": torch.randn(1, 3, 128, 128),
            "image2": torch.randn(1, 3, 128, 128),
            "num_flow_updates": 2,
        }
    elif name.startswith("mvit"):
        example = torch.randn(1, 3, 16, 224, 224)
    elif name.startswith(_VIDEO):
        example = torch.randn(1, 3, 16 if name == "s3d" else 8, 64, 64)
        if name == "s3d":
            example = torch.randn(1, 3, 16, 224, 224)
    elif name.startswith("vit_"):
        extra, example = {"image_size": 56 if name == "vit_h_14" else 64}, None
        example = torch.randn(1, 3, extra["image_size"], extra["image_size"])
    elif name == "maxvit_t":
        example = torch.randn(1, 3, 224, 224)
    elif name in ("inception_v3", "googlenet"):
        extra, example = {"init_weights": False}, torch.randn(1, 3, 96, 96)
    else:
        example = torch.randn(1, 3, 64, 64)
    return models.get_model(name, weights=None, **extra), example


def _timm(name: str) -> Case:
    import timm

    model = timm.create_model(name)
    size = tuple(model.default_cfg.get("input_size", (3, 224, 224)))
    if not model.default_cfg.get("fixed_input_size", False):
        small = torch.randn(1, size[0], 96, 96)
        try:
            with torch.no_grad():
                model.eval()(small)
            return model, small
        except Exception:  # it wants its own size
            pass
    return model, torch.randn(1, *size)


_TEXT = {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT |= {"intermediate_size": 96, "max_position_embeddings": 64}
_IMAGE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_IMAGE |= {"intermediate_size": 96, "image_size": 32, "patch_size": 8}
_GQA = {**_TEXT, "num_key_value_heads": 2, "use_cache": False}
_STAGES = {"image_size": 64, "num_labels": 10}

TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", _TEXT, "text"),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", _TEXT, "text"),
    "albert": ("AlbertModel", "AlbertConfig", {**_TEXT, "embedding_size": 32}, "text"),
    "electra": ("ElectraModel", "ElectraConfig", {**_TEXT, "embedding_size": 32}, "text"),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": 128, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96},
        "text",
    ),
    "deberta_v2": ("DebertaV2Model", "DebertaV2Config", _TEXT, "text"),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 128, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
        | {"use_cache": False},
        "text",
    ),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**_TEXT, "ffn_dim": 96, "word_embed_proj_dim": 64, "use_cache": False},
        "text",
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _GQA, "text"),
    "mistral": ("MistralForCausalLM", "MistralConfig", _GQA, "text"),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GQA, "text"),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_GQA, "head_dim": 16}, "text"),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**_GQA, "head_dim": 16}, "text"),
    "phi": ("PhiForCausalLM", "PhiConfig", {**_TEXT, "use_cache": False}, "text"),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 128, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2}
        | {"num_heads": 4, "use_cache": False},
        "seq2seq",
    ),
    "bart": (
        "BartForConditionalGeneration",
        "BartConfig",
        {"vocab_size": 128, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 96}
        | {"decoder_ffn_dim": 96, "max_position_embeddings": 64, "use_cache": False},
        "seq2seq",
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {"vocab_size": 128, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 96}
        | {"decoder_ffn_dim": 96, "max_source_positions": 32, "max_target_positions": 32}
        | {"num_mel_bins": 16, "use_cache": False, "pad_token_id": 0}
        | {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        "speech",
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", _IMAGE, "image"),
    "deit": ("DeiTForImageClassification", "DeiTConfig", _IMAGE, "image"),
    "beit": ("BeitForImageClassification", "BeitConfig", _IMAGE, "image"),
    "dinov2": ("Dinov2Model", "Dinov2Config", _IMAGE, "image"),
    "swin": (
        "SwinForImageClassification",
        "SwinConfig",
        {**_STAGES, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        "image",
    ),
    "convnext": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {**_STAGES, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]},
        "image",
    ),
    "segformer": (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {"num_labels": 10, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
        | {"num_attention_heads": [1, 2, 4, 4], "decoder_hidden_size": 32},
        "image",
    ),
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 16, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 2, 1]}
        | {"num_labels": 10},
        "image",
    ),
    "mobilevit": (
        "MobileViTForImageClassification",
        "MobileViTConfig",
        {"image_size": 64, "num_labels": 10},
        "image",
    ),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {"text_config": _TEXT, "vision_config": _IMAGE, "projection_dim": 48},
        "clip",
    ),
}
"""Name → (model class, config class, config arguments, kind of input)."""


def _transformers(name: str) -> Case:
    import transformers

    model_class, config_class, arguments, kind = TRANSFORMERS[name]
    config = getattr(transformers, config_class)(**arguments)
    model = getattr(transformers, model_class)(config)
    ids = torch.arange(2 * 12).view(2, 12) % 100 + 3
    image = torch.randn(1, 3, arguments.get("image_size", 64), arguments.get("image_size", 64))
    example: dict[str, Any] = {
        "text": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        "seq2seq": {"input_ids": ids, "decoder_input_ids": ids[:, :7]},
        "speech": {"input_features": torch.randn(1, 16, 64), "decoder_input_ids": ids[:1, :7]},
        "image": {"pixel_values": image},
        "clip": {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.randn(2, 3, 32, 32),
        },
    }[kind]
    return model, example
