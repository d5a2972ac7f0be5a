"""The grammar of descriptor specs, and what a fingerprint depends on."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models import spec
from models.errors import SpecError
from models.pooling import POOLINGS
from models.preprocess import CAFFE, IMAGENET
from models.spec import fingerprint, parse


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("resnet152/layer4/gem", "resnet152/layer4/gem"),
        ("alexnet/fc7", "alexnet/fc7/flatten"),
        ("vgg19/conv5_4/rmac/pca256", "vgg19/conv5_4/rmac/pca256"),
        ("alexnet/high", "alexnet/conv5/gem"),
        ("alexnet/low/mac", "alexnet/conv2/mac"),
        ("alexnet/conv5", "alexnet/conv5/gem"),
        ("alexnet/fc6/pca64", "alexnet/fc6/flatten/pca64"),
        ("alexnet/conv5/gem(p=3)", "alexnet/conv5/gem"),
        ("alexnet/conv5/gem(p=4)", "alexnet/conv5/gem(p=4)"),
        ("alexnet/conv5/spoc(centre=1)", "alexnet/conv5/spoc(centre=1)"),
        ("resnet152/layer3.35/crow", "resnet152/layer3.35/crow"),
        ("squeezenet1_1/features.12/spoc", "squeezenet1_1/features.12/spoc"),
        (" alexnet/conv5/gem ", "alexnet/conv5/gem"),
        ("alexnet/conv3+conv5", "alexnet/conv3+conv5/gem"),
        ("alexnet/features.11+conv3+pool1", "alexnet/pool1+conv3+features.11/gem"),
        ("alexnet/conv4+fc7/spoc/pca64", "alexnet/conv4+fc7/spoc/pca64"),
        ("alexnet/fc6+fc7", "alexnet/fc6+fc7/flatten"),
        ("resnet152/high/ms", "resnet152/layer4/gem/ms"),
        ("resnet152/layer4/gem(p=4)/ms/pca128", "resnet152/layer4/gem(p=4)/ms/pca128"),
        ("alexnet/conv3+conv5/ms", "alexnet/conv3+conv5/gem/ms"),
        ("alexnet/fc7/ms", "alexnet/fc7/flatten/ms"),
    ],
)
def test_specs_are_resolved_to_one_canonical_text(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("alexnet", "spec-invalid", "alexnet"),
        ("", "spec-invalid", "''"),
        ("alexnet//gem", "spec-invalid", "alexnet//gem"),
        ("nonet/conv5/gem", "spec-unknown-network", "nonet"),
        ("alexnet/conv6/gem", "spec-unknown-layer", "conv5"),
        ("alexnet/conv5+conv6/gem", "spec-unknown-layer", "conv6"),
        ("alexnet/conv5+/gem", "spec-unknown-layer", "''"),
        ("alexnet/conv5+features.11/gem", "spec-invalid", "twice"),
        ("alexnet/high+conv3", "spec-unknown-layer", "high"),
        ("alexnet/conv5/best", "spec-unknown-pooling", "best"),
        ("alexnet/conv5/gem(q=3)", "spec-unknown-pooling", "p from 0.1 to 20"),
        ("alexnet/conv5/gem(p=-1)", "spec-unknown-pooling", "p=-1"),
        ("alexnet/conv5/gem(p=0)", "spec-unknown-pooling", "p=0"),
        ("alexnet/conv5/gem(p=99999)", "spec-unknown-pooling", "p=99999"),
        ("alexnet/conv5/gem(p=1e400)", "spec-unknown-pooling", "p=1e400"),
        ("alexnet/conv5/rmac(levels=0)", "spec-unknown-pooling", "levels=0"),
        ("alexnet/conv5/gem/pca0", "spec-invalid", "pca0"),
        ("alexnet/conv5/gem/pca8/pca4", "spec-invalid", "pca8/pca4"),
        ("alexnet/conv5/gem/pca8/ms", "spec-invalid", "ms"),
        ("alexnet/conv5/gem/ms/ms", "spec-invalid", "ms"),
        ("alexnet/conv5/flatten/ms", "spec-scales-unfit", "fewer dimensions"),
        ("vit_b_16/encoder.ln/spoc/ms", "spec-scales-unfit", "one size"),
    ],
)
def test_a_wrong_spec_is_refused_naming_what_is_wrong(text: str, code: str, named: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse(text)
    assert refused.value.code == code
    assert named in str(refused.value)


@given(
    pooling=st.sampled_from(sorted(POOLINGS)),
    layer=st.sampled_from(["conv1", "conv5", "pool5", "fc7", "features.3"]),
    dim=st.none() | st.integers(1, 9999),
    multiscale=st.booleans(),
)
def test_parsing_the_canonical_text_gives_the_spec_again(
    pooling: str, layer: str, dim: int | None, multiscale: bool
) -> None:
    assume(not multiscale or pooling != "flatten" or layer == "fc7")
    made = spec.DescriptorSpec("alexnet", layer, pooling, (), dim, multiscale)
    assert parse(str(made)) == made


def test_a_fingerprint_changes_with_everything_that_a_descriptor_depends_on() -> None:
    base = parse("vgg19/conv5_4/gem")
    prints = [
        fingerprint(base, "a" * 64, IMAGENET, None),
        fingerprint(base, "b" * 64, IMAGENET, None),
        fingerprint(base, "a" * 64, CAFFE, None),
        fingerprint(base, "a" * 64, replace(IMAGENET, resize=232), None),
        fingerprint(base, "a" * 64, IMAGENET, "c" * 64),
        fingerprint(parse("vgg19/conv5_3/gem"), "a" * 64, IMAGENET, None),
        fingerprint(parse("vgg19/conv5_3+conv5_4/gem"), "a" * 64, IMAGENET, None),
        fingerprint(parse("vgg19/conv5_4/mac"), "a" * 64, IMAGENET, None),
        fingerprint(parse("vgg19/conv5_4/gem(p=4)"), "a" * 64, IMAGENET, None),
        fingerprint(parse("vgg16/conv5_3/gem"), "a" * 64, IMAGENET, None),
        fingerprint(parse("vgg19/conv5_4/gem/ms"), "a" * 64, IMAGENET, None),
    ]
    assert len(set(prints)) == len(prints)


def test_two_names_of_one_activation_have_one_fingerprint() -> None:
    names = ["alexnet/conv5/gem", "alexnet/features.11/gem"]
    prints = {fingerprint(parse(name), "a" * 64, IMAGENET, None) for name in names}
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "resnet152/layer4/gem",
            "713e835db2832a488340ec90b84fcfa23d73fdfa81c1a5825fb8f277bfed4cb7",
        ),
        (
            "alexnet/conv3+conv5/gem(p=4)",
            "fd6363c44a3a38007f54efd3e811f5252dbd51e2dc2bb8580a27778829ac4675",
        ),
    ],
)
def test_a_fingerprint_stays_what_collections_were_made_with(text: str, expected: str) -> None:
    assert fingerprint(parse(text), "a" * 64, IMAGENET, None) == expected


def test_whitening_comes_after_the_scales() -> None:
    whitened = parse("resnet152/layer4/gem/ms/pca128")
    assert str(whitened.base) == "resnet152/layer4/gem/ms"
    assert whitened.scales == (1.0, 2**-0.5, 0.5)
    assert parse("resnet152/layer4/gem/pca128").scales == (1.0,)
