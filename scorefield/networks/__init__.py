"""Networks: modules called as ``network(x, label, **condition)`` that know nothing of diffusion.

An own network needs no base class: it is any `torch.nn.Module` whose ``forward`` takes ``x``
``(B, *shape)``, labels ``(B,)`` and the conditions by name, such as classes ``y`` ``(B,)``, and
returns a tensor like ``x``. A `scorefield.Denoiser` chooses the label and interprets the output::

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(3, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)
            )

        def forward(self, x, label):
            return self.layers(torch.cat([x, label[:, None]], 1))

    field = sf.Denoiser(Own(), sf.VP(), sf.V(), shape=(2,))
    x = sf.sample(field, 4)
"""

import lazy_loader

# names load on first use: a command needs few of them
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
