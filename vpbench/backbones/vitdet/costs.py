"""What a frame of a ViTDet costs, in closed form. Imports no torch, so that plans can ask.

Norms, softmax, activations, resizing, sorting and gathering are not counted, nor the pooling of regions.
"""

from vpbench.backbones.vitdet import ViTDetConfig


def frame_macs(config: ViTDetConfig, kept: int | None = None) -> int:
    """Multiply-accumulates of the transformer as it runs here, for one frame of which `kept` tokens go on (None: all).

    Of block 0, keys and values are of all tokens; all else is of those that go on. Queries that fill up windows are
    not counted: `Frame.padding` is what they cost.
    """
    tokens, dim = config.tokens, config.dim
    going = tokens if kept is None else kept
    total = embedding_macs(config)
    for block in range(config.depth):
        side = config.window if block in config.windowed else config.grid
        entering = tokens if block == 0 else going
        weights = 2 * entering * dim * dim + 2 * going * dim * dim + 2 * going * dim * config.hidden
        total += weights + 2 * going * side * dim + 2 * going * side**2 * dim
    return total


def published_frame_macs(config: ViTDetConfig, kept: int | None = None) -> int:
    """Count the transformer's frame as RGTP's published figures do (ICIP 2025), its method's own products apart.

    Each addition of a bias, a residual, a position or a relative position counts 1 as well. The patch embedding does
    not count; all of block 0's attention, all windows and the relative positions of all queries do.
    """
    tokens, dim = config.tokens, config.dim
    going = tokens if kept is None else kept
    total = tokens * dim
    for block in range(config.depth):
        entering = tokens if block == 0 else going
        total += 4 * entering * dim * (dim + 1) + going * (2 * dim * config.hidden + config.hidden + dim)
        total += (entering + going) * dim + sum(published_attention(config, block, going).values())
    return total


def published_attention(config: ViTDetConfig, block: int, queries: int) -> dict[str, int]:
    """Return by kind what they count in a block's attention: in all windows, or from `queries` to all tokens."""
    tokens, dim = config.tokens, config.dim
    if block not in config.windowed:
        positions = {"einsum": 2 * tokens * config.grid * dim, "add": 2 * config.heads * tokens**2}
        return {"matmul": 2 * queries * tokens * dim, **positions}
    side = config.window
    count = (-(-config.grid // side)) ** 2
    filled = 3 * dim if config.grid % side else 0  # positions that no token fills are the bias of the qkv layer
    counts = {"matmul": 2 * count * side**4 * dim, "einsum": 2 * count * side**3 * dim}
    return {**counts, "add": 2 * count * config.heads * side**4, "bias": filled}


def attention_macs(config: ViTDetConfig, block: int) -> int:
    """Multiply-accumulates of a block's attention among all tokens; queries that fill up windows are not counted."""
    side = config.window if block in config.windowed else config.grid
    return 2 * config.tokens * (side + side**2) * config.dim


def embedding_macs(config: ViTDetConfig) -> int:
    """Multiply-accumulates of the patch embedding of one frame."""
    return config.tokens * 3 * config.patch**2 * config.dim


def pyramid_macs(config: ViTDetConfig) -> int:
    """Multiply-accumulates of the pyramid of one frame."""
    total, dim, channels = 0, config.dim, config.head.channels
    for scale, side in zip(config.scales, _sides(config), strict=False):
        width = {4.0: dim // 4, 2.0: dim // 2}.get(scale, dim)
        if scale > 1:
            total += 4 * config.tokens * dim * (dim // 2)
        if scale > 2:
            total += 16 * config.tokens * (dim // 2) * (dim // 4)
        total += side * side * (width * channels + 9 * channels * channels)
    return total


def head_macs(config: ViTDetConfig, proposals: int | None = None) -> int:
    """Multiply-accumulates of the detection head for one frame with so many proposals (None: as many as can be)."""
    head = config.head
    found = head.post_nms if proposals is None else proposals
    channels, positions = head.channels, sum(side * side for side in _sides(config))
    anchors = len(head.aspect_ratios)
    proposing = positions * channels * (9 * head.rpn_convs * channels + 5 * anchors)
    area = head.pooled**2
    region = area * channels * (9 * head.box_convs * channels + head.fc_dim) + head.fc_dim * (5 * head.classes + 1)
    return proposing + found * region


def _sides(config: ViTDetConfig) -> list[int]:
    """Return the sides of the pyramid's levels, the finest first."""
    sides = [int(config.grid * scale) for scale in config.scales]
    return [*sides, -(-sides[-1] // 2)]
