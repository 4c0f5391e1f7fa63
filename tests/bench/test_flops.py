"""FLOPs of an SD3 transformer against pencil and paper: every linear layer and both attention products."""

from __future__ import annotations

import pytest
import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig

from bench.flops import Flops, count, meta_twin, transformer_cost
from bench.lora import TARGETS

W = 32  # width
SIDE, PATCH, CHANNELS = 8, 2, 4
IMAGE, TEXT = (SIDE // PATCH) ** 2, 6  # tokens
JOINT, POOLED = 48, 24


def make(layers: int = 2, dual: tuple[int, ...] = ()) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=PATCH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=layers,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=JOINT,
        caption_projection_dim=W,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=SIDE,
        dual_attention_layers=dual,
        qk_norm="rms_norm",
    )


def cost(model: torch.nn.Module) -> Flops:
    return transformer_cost(model, (CHANNELS, SIDE, SIDE), TEXT)


def linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def attention(tokens: int) -> int:
    """Scores q k' and their product with v, all heads together: 2 x 2 x tokens² x width."""
    return 2 * 2 * tokens * tokens * W


EMBED = {  # layers whose inputs are data: their backward makes no gradient for the input
    "patches": linear(IMAGE, PATCH * PATCH * CHANNELS, W),
    "time": linear(1, 256, W),
    "pooled": linear(1, POOLED, W),
    "context": linear(TEXT, JOINT, W),
}


def forward_by_hand(layers: int, dual: tuple[int, ...] = ()) -> int:
    total = sum(EMBED.values()) + 2 * linear(1, W, W)  # second layers of the time and pooled embeddings
    for i in range(layers):
        last = i == layers - 1
        total += linear(1, W, (9 if i in dual else 6) * W)  # modulation of the image stream
        total += linear(1, W, (2 if last else 6) * W)  # and of the text stream
        total += 3 * linear(IMAGE, W, W) + 3 * linear(TEXT, W, W)  # q, k, v of both
        total += attention(IMAGE + TEXT)
        total += linear(IMAGE, W, W) + (0 if last else linear(TEXT, W, W))  # output projections
        total += 2 * linear(IMAGE, W, 4 * W) + (0 if last else 2 * linear(TEXT, W, 4 * W))  # feed-forward
        if i in dual:
            total += 4 * linear(IMAGE, W, W) + attention(IMAGE)
    return total + linear(1, W, 2 * W) + linear(IMAGE, W, PATCH * PATCH * CHANNELS)


@pytest.mark.parametrize(("layers", "dual"), [(1, ()), (2, ()), (3, (0, 1))])
def test_the_forward_is_counted_as_on_paper(layers, dual):
    assert cost(make(layers, dual)).forward == forward_by_hand(layers, dual)


def test_a_model_in_which_nothing_trains_has_no_backward():
    model = make().requires_grad_(False)
    assert cost(model) == Flops(forward_by_hand(2), 0.0)


@pytest.mark.parametrize(("layers", "dual"), [(2, ()), (3, (0, 1))])
def test_a_full_backward_costs_two_forwards_less_the_gradients_of_the_data(layers, dual):
    assert cost(make(layers, dual)).backward == 2 * forward_by_hand(layers, dual) - sum(EMBED.values())


def test_a_lora_backward_is_cheaper_than_a_full_one():
    full, model = cost(make()), make().requires_grad_(False)
    model.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=list(TARGETS)))
    lora = cost(model)
    # The adapter's own products on every target: image q, k, v, out and text q, k, v (and out but in the last block).
    adapter = sum(linear(tokens, W, 2) + linear(tokens, 2, W) for tokens in [*[IMAGE] * 8, *[TEXT] * 7])
    assert lora.forward == full.forward + adapter
    assert forward_by_hand(2) * 0.9 < lora.backward < 0.75 * full.backward


def test_attention_is_counted():
    """Doubling the text tokens doubles every linear layer on them, and attention grows by its square."""
    model = make(1)
    few, many = (transformer_cost(model, (CHANNELS, SIDE, SIDE), tokens).forward for tokens in (10, 20))
    per_token = 2 * (JOINT * W + 3 * W * W)
    assert many - few == 10 * per_token + attention(IMAGE + 20) - attention(IMAGE + 10)


def test_matrix_products_and_convolutions_are_counted_as_two_per_multiplication():
    x, layer = torch.empty(3, 5, device="meta"), torch.nn.Linear(5, 7, device="meta")
    assert count(lambda: layer(x)) == 2 * 3 * 5 * 7
    image, conv = torch.empty(1, 4, 8, 8, device="meta"), torch.nn.Conv2d(4, 6, 3, padding=1, device="meta")
    assert count(lambda: conv(image)) == 2 * 8 * 8 * 6 * 4 * 9


class Huge(torch.nn.Module):
    """Four terabytes of weights and as many of buffers that occupy four bytes: copying either is impossible."""

    def __init__(self) -> None:
        super().__init__()
        one = torch.zeros(1, 1)
        self.weight = torch.nn.Parameter(one.expand(2**20, 2**20))
        self.tied = self.weight
        self.frozen = torch.nn.Parameter(one.expand(2**20, 2**20), requires_grad=False)
        self.register_buffer("table", one.expand(2**20, 2**20))


def test_the_twin_never_allocates_weights():
    twin = meta_twin(Huge())
    assert all(t.device.type == "meta" for t in [*twin.parameters(), *twin.buffers()])
    assert twin.weight.shape == (2**20, 2**20)
    assert twin.tied is twin.weight
    assert twin.weight.requires_grad and not twin.frozen.requires_grad


def test_counting_leaves_the_model_as_it_was():
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost(model)
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_architecture_is_counted_once_and_another_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr("bench.flops.COUNTED", {})
    monkeypatch.setattr("bench.flops.count", lambda function: counted.append(1) or count(function))
    first, again = cost(make()), cost(make())
    assert first == again and len(counted) == 2  # a forward, and both
    assert cost(make().requires_grad_(False)) == Flops(first.forward, 0) and len(counted) == 3
    deeper = cost(make(layers=3))
    assert deeper.forward > first.forward and len(counted) == 5
    transformer_cost(make(), (CHANNELS, SIDE, SIDE), TEXT + 1)
    assert len(counted) == 7
