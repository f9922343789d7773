"""Files of embeddings for runs of text-conditioned networks."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from shell import end, finishes

import scorefield as sf
from scorefield._internal.errors import UsageError
from scorefield.data.embeddings import read_embeddings

diffusers = pytest.importorskip("diffusers")

TEXTS = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
SMALL = {
    "sample_size": 4,
    "in_channels": 1,
    "out_channels": 1,
    "cross_attention_dim": 6,
    "layers_per_block": 1,
    "block_out_channels": (8,),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run and files of embeddings."""
    folder = tmp_path_factory.mktemp("texts")
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(**SMALL).eval()
    network.conv_out.weight.data.mul_(3)
    sf.interop.diffusers.load((network, diffusers.DDPMScheduler())).save(folder / "run")
    np.save(folder / "texts.npy", TEXTS.numpy())
    save_file({"prompt_embeds": TEXTS, "pooled": TEXTS[:, 0].clone()}, folder / "texts.safetensors")
    np.save(folder / "wide.npy", np.zeros((2, 5, 7), np.float32))
    np.save(folder / "classes.npy", np.zeros((2, 5)).astype(np.int64))
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_sample_of_a_text_is_that_of_the_field_with_its_embedding(inside):
    words = ["sample", "run", "--n", 2, "--nfe", 3, "--batch-size", 2, "--overwrite"]
    run = sf.load("run")
    for source in ("texts.npy", "texts.safetensors"):
        finishes(*words, "--embeddings", source, "--prompt", 2, "--out", "x.npy")
        field = run.field.condition_on(encoder_hidden_states=TEXTS[2:])
        z = sf.sample(field, 2, sf.default_plan(run.field, 3), batch_size=2)
        assert torch.equal(torch.from_numpy(np.load("x.npy")), run.to_data(z))
    finishes(*words, "--embeddings", source, "--out", "first.npy")
    assert not np.array_equal(np.load("x.npy"), np.load("first.npy"))


@pytest.mark.parametrize(("kind", "width"), [("timestep", 0), ("identity", 32), ("projection", 5)])
def test_labels_that_are_numbers_are_given_as_any_other_condition(kind, width):
    torch.manual_seed(0)
    extra = {"projection_class_embeddings_input_dim": 5} if kind == "projection" else {}
    network = diffusers.UNet2DConditionModel(**SMALL, class_embed_type=kind, **extra).eval()
    network.conv_out.weight.data.mul_(3)
    run = sf.interop.diffusers.load((network, diffusers.DDPMScheduler()))
    labels = torch.rand(3, *[width] * (width > 0))
    given = {"encoder_hidden_states": TEXTS, "class_labels": labels}
    x = torch.randn(3, *run.field.shape)
    found = run.toward(given)(x, 7.0).eps
    truth = network(x, torch.tensor(7.0), TEXTS, class_labels=labels).sample
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-4)
    one = run.toward(given | {"class_labels": labels[1]})(x, 7.0).eps
    assert torch.equal(one[1], found[1])
    assert not torch.allclose(one[0], found[0])
    if width:
        with pytest.raises(ValueError, match=rf"class_labels has shape .*width {width}"):
            run.toward(given | {"class_labels": torch.zeros(3, width + 1)})(x, 7.0)


def test_a_text_is_given_as_any_other_condition(inside):
    """One for all, or one for each sample; what the run takes besides is the same everywhere."""
    run = sf.load("run")
    bound = run.condition_on(encoder_hidden_states=TEXTS[2:])
    settings = {"nfe": 3, "batch_size": 2}
    one = run.sample(2, given={"encoder_hidden_states": TEXTS[2]}, **settings)
    assert torch.equal(one, bound.sample(2, **settings))
    each = run.sample(3, given={"encoder_hidden_states": TEXTS.numpy()}, **settings)
    assert torch.equal(each[2], bound.sample(3, **settings)[2])
    assert not torch.allclose(each[0], bound.sample(1, **settings)[0])
    x, given = each[:1], {"encoder_hidden_states": TEXTS[0]}
    density = run.log_prob(x, nfe=8, probes=2, given=given).value
    same = run.condition_on(**{k: v[None] for k, v in given.items()})
    assert torch.equal(density, same.log_prob(x, nfe=8, probes=2).value)
    with pytest.raises(UsageError, match=r"encoder_hidden_states has shape \(6,\): give \(tokens"):
        run.sample(1, given={"encoder_hidden_states": TEXTS[0, 0]})
    with pytest.raises(UsageError, match="this run has no conditions"):
        run.sample(1, given={"dose": 1.0})


def test_plans_are_tuned_for_all_texts_and_the_check_uses_one(inside, monkeypatch):
    seen = []

    def record(*_, **settings):
        seen.append(settings.get("conditions", settings)["encoder_hidden_states"])
        raise UsageError("enough")

    monkeypatch.setattr("scorefield.runs.tune.Tuner", record)
    monkeypatch.setattr("scorefield.runs.comparison.check_network", record)
    assert end("tune", "run", "--nfe", 2, "--embeddings", "texts.npy") == 2
    assert end("check", "run", "--n", 2, "--embeddings", "texts.npy", "--prompt", 1) == 2
    assert torch.equal(seen[0], TEXTS)
    assert torch.equal(seen[1], TEXTS[1:2])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("sample run --embeddings nix.npy", 3, "nix.npy: no such file"),
        ("sample run --embeddings classes.npy", 3, "needs floating-point numbers of shape"),
        ("sample run --embeddings wide.npy", 2, "the embeddings of this network have the width 6"),
        ("sample run --embeddings texts.npy --prompt 3", 2, "has the texts 0 to 2"),
        ("sample run --prompt 0", 2, "--prompt 0: has no effect without --embeddings"),
        ("sample run", 2, "this network needs the embedding of a text"),
    ],
)
def test_what_is_no_embedding_is_refused_in_one_line(inside, capsys, words, code, says):
    assert end(*words.split(), "--out", "none.npy") == code
    assert says in capsys.readouterr().err


def test_one_text_may_have_two_sides(tmp_path):
    np.save(tmp_path / "one.npy", TEXTS[0].numpy())
    assert torch.equal(read_embeddings(tmp_path / "one.npy"), TEXTS[:1])
