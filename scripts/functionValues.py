"""Writes tests/fixtures/functionValues.json: values and two derivatives of the library's functions over the range of f64, computed with 60 digits
by mpmath and rounded. Usage: python scripts/functionValues.py > tests/fixtures/functionValues.json"""

import json
import math
import random

from mpmath import mp, mpf

mp.dps = 60


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def density(x):
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def below(x):
    """The normal distribution function."""
    return mp.ncdf(x) if abs(x) < 1e3 else mpf(x > 0)


def erf(x):
    return mp.erf(x) if abs(x) < 1e3 else mp.sign(x)


def gelu(x):
    return x * below(x)


def sech2(x):
    return mp.sech(x) ** 2


root = mp.sqrt(2 / mp.pi)
kappa = mpf(0.044715)


def gelu_tanh(x):
    """The value and two derivatives of x h, where h = (1 + tanh u) / 2 and u is the cubic."""
    u, du, ddu = root * (x + kappa * x**3), root * (1 + 3 * kappa * x**2), root * 6 * kappa * x
    t, s = mp.tanh(u), sech2(u)
    h, dh, ddh = (1 + t) / 2, s * du / 2, (s * ddu - 2 * t * s * du**2) / 2
    return h * x, h + x * dh, 2 * dh + x * ddh


# Value, first and second derivative.
functions = {
    'exp': lambda x: (mp.exp(x), mp.exp(x), mp.exp(x)),
    'log': lambda x: (mp.log(x), 1 / x, -1 / x**2),
    'sqrt': lambda x: (mp.sqrt(x), 1 / (2 * mp.sqrt(x)), -1 / (4 * x * mp.sqrt(x))),
    'rsqrt': lambda x: (1 / mp.sqrt(x), -1 / (2 * x * mp.sqrt(x)), mpf(3) / (4 * x**2 * mp.sqrt(x))),
    'sin': lambda x: (mp.sin(x), mp.cos(x), -mp.sin(x)),
    'cos': lambda x: (mp.cos(x), -mp.sin(x), -mp.cos(x)),
    'tanh': lambda x: (mp.tanh(x), sech2(x), -2 * mp.tanh(x) * sech2(x)),
    'erf': lambda x: (erf(x), 2 / mp.sqrt(mp.pi) * mp.exp(-x * x), -4 * x / mp.sqrt(mp.pi) * mp.exp(-x * x)),
    'sigmoid': lambda x: (sigmoid(x), sigmoid(x) * sigmoid(-x), sigmoid(x) * sigmoid(-x) * (1 - 2 * sigmoid(x))),
    'softplus': lambda x: (mp.log1p(mp.exp(-abs(x))) + max(x, 0), sigmoid(x), sigmoid(x) * sigmoid(-x)),
    'silu': lambda x: (
        x * sigmoid(x), sigmoid(x) * (1 + x * sigmoid(-x)),
        sigmoid(x) * sigmoid(-x) * (2 + x * (1 - 2 * sigmoid(x))),
    ),
    'gelu': lambda x: (gelu(x), below(x) + x * density(x), density(x) * (2 - x * x)),
    'geluTanh': gelu_tanh,
}


def points(positive):
    draw = random.Random(1)
    exponents = [*range(-9, 10), *range(-1000, 1001, 100)]
    sizes = [math.ldexp(1 + draw.random(), e) for e in exponents]
    return sizes if positive else sizes + [-x for x in sizes]


def rounded(value):
    result = float(value)
    return result if math.isfinite(result) else str(result).replace('inf', 'Infinity')


table = {}
for name, f in functions.items():
    rows = []
    for x in points(name in ('log', 'sqrt', 'rsqrt')):
        # Enough digits for the reduction of the largest arguments.
        mp.dps = 400 if abs(x) > 1e10 and name in ('sin', 'cos') else 60
        rows.append([x, *(rounded(v) for v in f(mpf(x)))])
    table[name] = rows
print('{\n' + ',\n'.join(f'{json.dumps(name)}: [\n' + ',\n'.join(json.dumps(row) for row in rows) + ']' for name, rows in table.items()) + '}')
