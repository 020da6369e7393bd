"""The networks of `training.py` in PyTorch."""

from torch import nn


def network(name, width):
    """The network `name` of the registry for images `[n, 3, 32, 32]` and 10 classes."""
    return {"nin": _nin, "cnn": _cnn, "resnet": _resnet}[name](width)


def _nin(width):
    layers, channels = [], 3
    for _ in range(2):
        for window in (3, 1, 1):
            conv = nn.Conv2d(channels, width, window, stride=2 if window == 3 else 1, padding=window // 2)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 10, 1), nn.Flatten())


def _cnn(width):
    layers, channels = [], 3
    for i, pool in enumerate((1, 2, 2, 8)):
        conv = nn.Conv2d(channels, channels := width << i, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(pool)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 10))


def _resnet(width):
    layers, channels = [nn.Conv2d(3, width, 3, padding=1, bias=False)], width
    for stage in range(4):
        for i in range(2):
            layers.append(_Block(channels, width << stage, 2 if stage and not i else 1))
            channels = width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class _Block(nn.Module):
    """A pre-activation block: (batch norm, ReLU, 3×3 convolution) twice, and a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.norm0, self.norm1 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv0 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, inputs):
        active = self.norm0(inputs).relu_()
        shortcut = inputs if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv1(self.norm1(self.conv0(active)).relu_())
