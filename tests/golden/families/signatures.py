"""The arguments of everything public in larq: names, order, defaults."""

import inspect

import larq as lq

from .registry import family

MODULES = (
    "activations",
    "callbacks",
    "constraints",
    "context",
    "layers",
    "math",
    "metrics",
    "models",
    "optimizers",
    "quantizers",
    "utils",
)


@family
def signatures():
    for name in MODULES:
        module = getattr(lq, name)
        for attribute, value in sorted(vars(module).items()):
            defined_here = getattr(value, "__module__", None) == module.__name__
            if not callable(value) or attribute.startswith("_") or not defined_here:
                continue
            try:
                parameters = inspect.signature(value).parameters.values()
            except ValueError:
                continue
            arguments = [
                [p.name, None if p.default is p.empty else repr(p.default)]
                for p in parameters
                if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            ]
            yield {"id": f"{name}.{attribute}", "arguments": arguments}, {}
