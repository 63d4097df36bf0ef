"""What RGTP's tables say and what counting by the published code's rules gives, in GMACs."""

#: preset -> published, counted with the published code's rules; per video of 12 views (ViViT) or per frame (ViTDet)
ROWS = {
    "k400_base": (3360, 3359.6), "k400_keep_049": (1790, 1788.8), "k400_keep_0215": (1010, 1015.7),
    "k400_keep_0066": (610, 608.0), "epic_base": (7120, 7122.0), "epic_fg_300_bg_025": (5510, 5507.7),
    "epic_fg_180_bg_016": (4040, 4040.7), "epic_fg_120_bg_005": (2970, 2968.8), "epic_fg_160s05_bg_009": (2250, 2248.3),
    "epic_fg_96s05_bg_003": (1710, 1705.6), "epic_fg_28s05_bg_00": (1340, 1341.6), "vid672_base": (174.5, 174.50),
    "vid672_keep768": (93.4, 93.42), "vid672_keep512": (72.6, 72.60), "vid672_keep384": (62.1, 62.14),
    "vid672_keep196": (46.8, 46.79), "vid672_keep64": (36.0, 36.01), "vid1024_base": (467.4, 467.44),
    "vid1024_keep2200": (288.9, 288.95), "vid1024_keep1400": (213.7, 213.70), "vid1024_keep750": (152.4, 152.38),
    "vid1024_keep400": (119.1, 119.14), "vid1024_keep75": (88.8, 88.81),
}  # fmt: skip
