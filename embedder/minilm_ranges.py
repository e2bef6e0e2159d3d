"""The ranges of the activations of all-MiniLM-L6-v2, for its int8 form. Printed by embedder/calibrate.py.

Measured over 1,409 texts: Debian's package descriptions, with source code, a hundred languages and gibberish.
"""

# The lowest and the highest value at each place that is quantised, without what is loud.
RANGES: dict[str, tuple[float, float]] = {
    "0.attention": (-7.2, 6.33),
    "0.context": (-3.3, 2.37),
    "0.feed": (-7.32, 8.0),
    "0.units": (-0.17, 6.0),
    "1.attention": (-6.32, 8.13),
    "1.context": (-2.92, 3.04),
    "1.feed": (-7.32, 8.0),
    "1.units": (-0.17, 6.0),
    "2.attention": (-6.46, 7.99),
    "2.context": (-2.58, 2.86),
    "2.feed": (-8.0, 8.0),
    "2.units": (-0.17, 6.0),
    "3.attention": (-6.83, 9.66),
    "3.context": (-2.99, 2.78),
    "3.feed": (-8.0, 8.0),
    "3.units": (-0.17, 6.0),
    "4.attention": (-6.42, 10.52),
    "4.context": (-3.16, 2.92),
    "4.feed": (-8.0, 8.0),
    "4.units": (-0.17, 6.0),
    "5.attention": (-5.97, 9.96),
    "5.context": (-4.49, 3.48),
    "5.feed": (-8.0, 8.0),
    "5.units": (-0.17, 6.0),
}

# Channels of a feed-forward layer's input that go further, on one side or the other.
LOUD_CHANNELS: dict[str, dict[int, float]] = {
    "0.feed": {63: 11.3, 99: 28.5},
    "1.feed": {63: 8.7, 99: 30.4, 267: 8.4},
    "2.feed": {62: 9.3, 99: 27.7, 223: 12.3},
    "3.feed": {62: 9.6, 63: 9.8, 99: 28.8, 223: 13.8},
    "4.feed": {62: 9.1, 63: 9.2, 99: 21.6, 127: 14.1, 223: 12.3},
    "5.feed": {62: 11.9, 99: 13.1, 223: 12.6, 319: 9.5},
}

# Hidden units that go further than the range of "N.units".
LOUD_UNITS: dict[str, dict[int, float]] = {
    "0.units": {329: 6.1, 856: 24.5},
    "1.units": {116: 6.5, 251: 8.4, 360: 7.9, 467: 7.1, 607: 20.4, 821: 6.6, 951: 6.3},
    "2.units": {218: 14.7, 606: 6.9, 804: 6.9, 874: 6.2, 1004: 17.5, 1166: 6.6, 1265: 7.0, 1309: 6.4, 1445: 6.5},
    "3.units": {201: 8.0, 318: 6.5, 358: 13.7, 750: 7.2, 1155: 6.4, 1383: 6.1},
    "4.units": {
        128: 6.5,
        192: 6.5,
        637: 8.7,
        682: 6.8,
        716: 7.0,
        918: 6.8,
        1031: 7.3,
        1089: 6.2,
        1097: 7.3,
        1257: 6.1,
        1313: 7.5,
        1321: 7.8,
        1357: 7.4,
    },
    "5.units": {1302: 9.2},
}
