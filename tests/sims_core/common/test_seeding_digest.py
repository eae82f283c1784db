"""Seeds and digests: what names things."""

import ast
import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sims_core
from sims_core.common import purposes
from sims_core.common.digest import canonical_json, digest_of, file_sha256
from sims_core.common.seeding import SEED_SPACE, derive_seed, image_seed
from sims_core.diffusion.noise import generator

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(first=st.integers(0, 2**33), count=st.integers(1, 3000))
def test_image_seeds_of_a_set_never_collide(first, count):
    seeds = [image_seed(first, i) for i in range(count)]
    assert len(set(seeds)) == count
    assert all(0 <= seed < SEED_SPACE for seed in seeds)


def test_image_seeds_wrap_without_colliding():
    assert [image_seed(2**32 - 2, i) for i in range(4)] == [2**32 - 2, 2**32 - 1, 0, 1]


def test_torch_ignores_bits_above_the_32nd():
    """The trap behind SEED_SPACE: two 64-bit seeds, one stream of noise."""

    def draw(seed):
        return torch.randn(4, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(5), draw(5 + 2**32))
    assert not torch.equal(draw(5), draw(5 + 2**31))


@given(
    seed=st.integers(0, 2**63),
    path=st.lists(st.text(alphabet="abc01/:", max_size=3) | st.integers(0, 50), max_size=3),
)
def test_derived_seeds_follow_the_documented_rule(seed, path):
    text = json.dumps([seed, *path], separators=(",", ":"))
    expected = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
    assert derive_seed(seed, *path) == expected < SEED_SPACE


def test_derived_seeds_depend_on_every_element_and_their_order():
    paths = [
        (0,),
        (1,),
        (0, "a"),
        (0, "a", 1),
        (0, "a", "1"),
        (0, 1, "a"),
        (0, "a", 11),
        (1, "a"),
        (0, "a/str:b"),
        (0, "a", "b"),
    ]
    assert len({derive_seed(*path) for path in paths}) == len(paths)


def test_generator_is_seeded_by_its_path():
    first, second, third = (
        torch.rand(3, generator=generator(3, *path)) for path in [("a", 1), ("a", 1), ("a", 2)]
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    plain = torch.rand(3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.rand(3, generator=generator(3)), plain)


@given(JSON)
def test_canonical_json_is_lossless(value):
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_digest_ignores_the_order_of_keys(value):
    backwards = dict(reversed(list(value.items())))
    assert digest_of(backwards) == digest_of(value)
    assert digest_of(json.loads(json.dumps(value))) == digest_of(value)


@given(JSON, JSON)
def test_digest_tells_values_apart(first, second):
    equal = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (digest_of(first) == digest_of(second)) == equal


def test_digest_is_the_sha256_of_the_canonical_text():
    value = {"b": [1, 0.5, None], "a": "ä"}
    assert canonical_json(value) == '{"a":"ä","b":[1,0.5,null]}'
    assert digest_of(value) == hashlib.sha256('{"a":"ä","b":[1,0.5,null]}'.encode()).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": [-float("inf")]}])
def test_values_without_a_canonical_text_are_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_of(value)


def test_file_digest(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # FIPS 180-2's own example
    assert file_sha256(path) == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_every_purpose_of_a_seed_is_a_named_constant():
    """A text in the call would be changed by whoever rewords it, and every number with it."""
    found = 0
    for path in Path(sims_core.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("generator", "derive_seed", "stage_seed"):
                found += 1
                texts = [a for a in node.args if isinstance(getattr(a, "value", None), str)]
                assert not texts, f"{path}:{node.lineno}"
    assert found > 20


PURPOSES = {
    "DATA": "data",
    "FRESH_DATA": "fresh data",
    "REFERENCE": "reference",
    "CLASSIFIER": "classifier",
    "TRAIN_BASE": "train base",
    "SELF_SYNTHETIC": "self-synthetic",
    "FINE_TUNE_AUXILIARY": "fine-tune auxiliary",
    "TRAIN_AUXILIARY": "train auxiliary",
    "GENERATE": "generate",
    "PREVIEW": "preview",
    "EVALUATE": "evaluate",
    "INITIALISE": "initialise",
    "EPOCH": "epoch",
    "NOISE": "noise",
    "FLIP": "flip",
    "DROPOUT": "dropout",
    "AUGMENT": "augment",
    "BATCHES": "batches",
    "GRID": "grid",
    "LABEL": "label",
    "PICK": "pick",
    "POSTERIOR": "posterior",
    "FLOOR": "floor",
    "BOOTSTRAP": "bootstrap",
}


def test_purposes_are_never_reworded():
    """Each is part of what seeds are derived from; a new one may be added."""
    known = {name: value for name, value in vars(purposes).items() if name.isupper()}
    assert len(set(known.values())) == len(known)
    assert {name: known[name] for name in PURPOSES} == PURPOSES
